//! Whether the parts of an image agree with each other.

use crate::{
    Digest,
    document::{ImageConfig, Manifest, media_type},
    error::ImageProblem,
};

/// Compares a manifest with its config, whose bytes are `config_bytes`, and returns all contradictions. None is a good image.
///
/// Layers are not looked at; their digests are verified by whoever reads them.
///
/// # Source
///
/// OCI image-spec, `manifest.md` and `config.md`.
pub fn validate(
    manifest: &Manifest,
    config: &ImageConfig,
    config_bytes: &[u8],
) -> Vec<ImageProblem> {
    let mut out = Vec::new();
    let (found, found_size) = (Digest::of(config_bytes), config_bytes.len() as u64);
    if (manifest.config.digest, manifest.config.size) != (found, found_size) {
        let (expected, expected_size) = (manifest.config.digest, manifest.config.size);
        out.push(ImageProblem::Config { expected, expected_size, found, found_size });
    }

    let is_docker = manifest.media_type == media_type::DOCKER_MANIFEST;
    let config_type = if is_docker { media_type::DOCKER_CONFIG } else { media_type::OCI_CONFIG };
    if manifest.config.media_type != config_type {
        let found = manifest.config.media_type.clone();
        out.push(ImageProblem::MediaType { what: "the config", found });
    }
    let layer_types: &[&str] = match is_docker {
        true => &[media_type::DOCKER_LAYER, media_type::DOCKER_LAYER_GZIP],
        false => &[media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD],
    };
    for layer in &manifest.layers {
        if !layer_types.contains(&layer.media_type.as_str()) {
            let found = layer.media_type.clone();
            out.push(ImageProblem::MediaType { what: "a layer", found });
        }
    }

    let n_diff_ids = config.rootfs.diff_ids.len();
    if manifest.layers.len() != n_diff_ids {
        out.push(ImageProblem::LayerCount { n_layers: manifest.layers.len(), n_diff_ids });
    }
    let n_history = config.history.iter().filter(|it| !it.empty_layer).count();
    // No history at all is allowed.
    if !config.history.is_empty() && n_history != n_diff_ids {
        out.push(ImageProblem::HistoryCount { n_history, n_diff_ids });
    }

    let mut field = |key, value: &str, is_good: bool| {
        if !is_good {
            out.push(ImageProblem::Field { key, value: value.to_owned() });
        }
    };
    field("os", &config.os, !config.os.is_empty());
    field("architecture", &config.architecture, !config.architecture.is_empty());
    field("rootfs.type", &config.rootfs.kind, config.rootfs.kind == "layers");
    for line in &config.config.env {
        field("Env", line, line.find('=').is_some_and(|at| at > 0));
    }
    out
}
