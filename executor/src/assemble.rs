//! From the results of steps to an image: layers in order, history with times, config, manifest.

use std::borrow::Cow;

use image::{
    DiffId, Digest, ImageId, Platform,
    canonical::to_canonical_json,
    document::{Descriptor, History, ImageConfig, Manifest, media_type},
};
use planner::plan::{Plan, PlannedHistory};

use crate::{
    attest::Attestation,
    error::ExecutorError,
    time::{Timestamp, rfc3339},
};

/// A finished image, not yet named or written anywhere.
#[derive(Debug, Clone)]
pub struct Built {
    /// For which platform.
    pub platform: Platform,
    /// Its layers from the bottom up.
    pub layers: Vec<DiffId>,
    /// Its config.
    pub config: ImageConfig,
    /// The config as bytes.
    pub config_bytes: Vec<u8>,
    /// The digest of those bytes.
    pub id: ImageId,
    /// `SOURCE_DATE_EPOCH`, if it was set.
    pub epoch: Option<i64>,
    /// What is said of it.
    pub attestations: Vec<Attestation>,
}

/// What a step left behind, as far as an image shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepLayer {
    /// Its layer; none if it changed nothing.
    pub layer: Option<DiffId>,
    /// When it was made.
    pub created: Timestamp,
}

/// Puts an image together. `layers` are those of the plan's result, `step` tells what a step left.
pub(crate) fn assemble(
    plan: &Plan,
    layers: Vec<DiffId>,
    step: impl Fn(planner::plan::StepId) -> Option<StepLayer>,
) -> Result<Built, ExecutorError> {
    let mut config = plan.config.clone();
    config.rootfs.diff_ids = layers.clone();
    let made: Vec<Option<StepLayer>> =
        plan.history.iter().map(|it| it.step.and_then(&step)).collect();
    config.history = history(&plan.history, &made, plan.epoch);
    config.created = config.history.iter().rev().find_map(|it| it.created.clone());
    if config.created.is_none() {
        config.created = plan.epoch.map(|secs| rfc3339(Timestamp { secs, nanos: 0 }));
    }
    let mut config_bytes =
        to_canonical_json(&config).map_err(|source| ExecutorError::Encode { source })?;
    // What is not UTF-8 cannot be said in it; this is how Go's encoder writes it.
    let text = std::str::from_utf8(&config_bytes).map(|it| parser::replace(it, r"\ufffd"));
    if let Ok(Cow::Owned(text)) = text {
        config_bytes = text.into_bytes();
    }
    let id = ImageId(Digest::of(&config_bytes));
    Ok(Built {
        platform: plan.platform.clone(),
        layers,
        config,
        config_bytes,
        id,
        epoch: plan.epoch,
        attestations: Vec::new(),
    })
}

/// Fills in times: each layer's own; lines without a layer get that of the layer before them, or of the first new one.
fn history(
    planned: &[PlannedHistory],
    made: &[Option<StepLayer>],
    epoch: Option<i64>,
) -> Vec<History> {
    let mut lines: Vec<History> = planned
        .iter()
        .zip(made)
        .map(|(planned, made)| {
            let mut line = planned.history.clone();
            if let Some(made) = made {
                line.empty_layer = made.layer.is_none();
                if epoch.is_none() {
                    line.created = Some(rfc3339(made.created));
                }
            }
            if let (Some(secs), true) = (epoch, line.created.is_none()) {
                line.created = Some(rfc3339(Timestamp { secs, nanos: 0 }));
            }
            line
        })
        .collect();
    let mut created: Option<String> = None;
    let mut is_after_gap = false;
    for line in &lines {
        if let Some(time) = &line.created {
            created = Some(time.clone());
            if is_after_gap {
                break;
            }
        } else {
            is_after_gap = true;
        }
    }
    let mut is_after_gap = false;
    for line in &mut lines {
        match &line.created {
            Some(time) if is_after_gap => created = Some(time.clone()),
            Some(_) => {}
            None => {
                is_after_gap = true;
                line.created = created.clone();
            }
        }
    }
    lines
}

/// The manifest of an image whose layers are these descriptors.
pub(crate) fn manifest(config: &[u8], layers: Vec<Descriptor>) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: descriptor(media_type::OCI_CONFIG, Digest::of(config), config.len() as u64),
        layers,
        annotations: Default::default(),
        other: Default::default(),
    }
}

/// A descriptor with nothing but the three fields that each has.
pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: Default::default(),
        platform: None,
        other: Default::default(),
    }
}
