//! A store in memory, and images to put into it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::Mutex,
};

use image::{
    DiffId, Digest,
    document::{Descriptor, ImageConfig, Manifest, RootFs, media_type},
    layer::{Mode, Record, TarReader},
};
use registry::{BlobSink, BlobSource, Export, RawDocument};

/// Keeps blobs.
#[derive(Default)]
pub struct MemoryStore(Mutex<BTreeMap<Digest, Vec<u8>>>);

impl MemoryStore {
    pub fn add(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.replace(digest, bytes.to_vec());
        digest
    }

    pub fn replace(&self, digest: Digest, bytes: Vec<u8>) {
        self.0.lock().expect("no test panics with the lock held").insert(digest, bytes);
    }

    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.0.lock().expect("no test panics with the lock held").get(digest).cloned()
    }
}

impl BlobSource for MemoryStore {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.get(&descriptor.digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}

impl BlobSink for MemoryStore {
    fn put(&self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let found = Digest::of(&bytes);
        if expected.is_some_and(|it| it != found) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another digest"));
        }
        Ok((self.add(&bytes), bytes.len() as u64))
    }
}

pub fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    RawDocument::new(media_type, bytes.to_vec()).descriptor()
}

/// Makes an image of these layers, puts the layers into `store`, and returns the rest.
pub fn image_of(store: &MemoryStore, layers: &[&str], architecture: &str) -> Export {
    let diff_ids = layers.iter().map(|it| DiffId(Digest::of(it.as_bytes()))).collect();
    let config = ImageConfig {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        ..ImageConfig::default()
    };
    let config = serde_json::to_vec(&config).expect("it can be written");
    for layer in layers {
        store.add(layer.as_bytes());
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: describe(media_type::OCI_CONFIG, &config),
        layers: layers.iter().map(|it| describe(media_type::OCI_LAYER, it.as_bytes())).collect(),
        annotations: BTreeMap::new(),
        other: Default::default(),
    };
    let manifest = serde_json::to_vec(&manifest).expect("it can be written");
    Export {
        documents: vec![RawDocument::new(media_type::OCI_MANIFEST, manifest)],
        configs: vec![config],
        ..Export::default()
    }
}

/// Returns the files of a tar in order.
pub fn tar_entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = TarReader::with(tar, Mode::Archive, Default::default());
    let mut entries = Vec::new();
    while let Some(record) = reader.next().expect("the tar is good") {
        if let Record::Entry(entry) = record {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).expect("the tar is good");
            entries.push((String::from_utf8(entry.path).expect("it is text"), content));
        }
    }
    entries
}
