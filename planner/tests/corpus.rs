//! Runs the fuzz targets on the inputs that were kept, in `testdata/fuzz/TARGET`: what was wrong once, and a few dozen that
//! together reach far. `scripts/fuzz` looks for more.

use std::{fs, path::Path, time::Instant};

#[path = "../../fuzz/checks.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets see this module as a crate")]
mod checks;

#[test]
fn kept_inputs_do_no_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/fuzz");
    let targets = fs::read_dir(&folder).expect("testdata/fuzz is there").count();
    assert_eq!(targets, checks::TARGETS.len(), "each target has a folder, and no other is there");
    for (target, check) in checks::TARGETS {
        let mut n_inputs = 0;
        for entry in fs::read_dir(folder.join(target)).expect("the target has a folder") {
            let path = entry.expect("it can be listed").path();
            let input = fs::read(&path).expect("it can be read");
            let start = Instant::now();
            check(&input);
            // Far from what a busy machine makes of a second.
            assert!(start.elapsed().as_secs() < 10, "{} takes too long", path.display());
            n_inputs += 1;
        }
        assert_ne!(n_inputs, 0, "{target}: no inputs");
    }
}
