//! Records of steps.

use cache::{StepKey, StepRecord};
use image::DiffId;

/// Makes the record of a step called `RUN step N`, where N is the first byte of its key.
pub(crate) fn step_record(key: StepKey, layer: Option<DiffId>) -> StepRecord {
    StepRecord {
        key,
        parent: None,
        layer,
        same_as: None,
        description: format!("RUN step {}", key.0[0]),
        recipe: serde_json::json!({"kind": "run"}),
        created: 1,
        duration_ms: 2,
        last_used: 0,
    }
}
