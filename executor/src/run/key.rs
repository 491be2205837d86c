//! The key of a RUN: everything that can change the bytes of its layer.

use planner::plan::{MountOp, RunOp, Source, Step};

use super::mounts::whole;
use crate::{
    copy,
    error::ExecutorError,
    execute::Execution,
    key::{KeyBuilder, chain_id},
    session::Task,
    tree::Chain,
};

impl Execution<'_> {
    /// The key of a RUN. With `content` mounts count by what is in them, without by the layers they come from; nothing if
    /// some of them come from no layers.
    pub(crate) fn run_key(
        &self,
        step: &Step,
        op: &RunOp,
        parent: &Chain,
        content: bool,
        task: &Task<'_>,
    ) -> Result<Option<(cache::StepKey, serde_json::Value)>, ExecutorError> {
        let mut key = KeyBuilder::new(if content { "run with contents" } else { "run" });
        key.digest("parent", &chain_id(parent.layers()));
        key.texts("args", op.args.iter().map(String::as_str));
        let env: Vec<String> =
            op.env.pairs().iter().map(|(name, value)| format!("{name}={value}")).collect();
        key.texts("env", env.iter().map(String::as_str));
        key.text("cwd", &op.cwd);
        key.text("user", &op.user);
        key.text("hostname", &op.hostname);
        key.text("network", &format!("{:?}", op.network));
        key.text("security", if op.insecure { "insecure" } else { "sandbox" });
        key.text("platform", &step.platform.to_string());
        key.text("latest", &self.latest().map(|it| it.to_string()).unwrap_or_default());
        key.texts("hosts", op.extra_hosts.iter().map(|(name, _)| name.as_str()));
        key.text("shm", &op.shm_size.map(|it| it.to_string()).unwrap_or_default());
        let ulimits: Vec<String> =
            op.ulimits.iter().map(|(name, soft, hard)| format!("{name}={soft}:{hard}")).collect();
        key.texts("ulimits", ulimits.iter().map(String::as_str));
        if let Some((name, script)) = &op.script {
            key.text("script", name);
            key.text("script text", script);
        }
        for mount in &op.mounts {
            match mount {
                MountOp::Bind { source, path, target, writable } => {
                    key.text("bind", &format!("{target} {path} {writable}"));
                    match source {
                        Source::Scratch => key.text("of", "nothing"),
                        Source::Image(_) | Source::Step(_) if !content => {
                            key.digest("of", &chain_id(self.chain(source)?.layers()));
                        }
                        _ if !content => return Ok(None),
                        _ => key.digest("of", &self.content_of(source, path, task)?),
                    }
                }
                MountOp::Cache { target, seed, read_only, .. } => {
                    key.text("cache", &format!("{target} {read_only}"));
                    if let Some((source, path)) = seed {
                        key.text("seed", path);
                        key.digest("of", &chain_id(self.chain(source)?.layers()));
                    }
                }
                MountOp::Tmpfs { target, size } => key.text("tmpfs", &format!("{target} {size:?}")),
                MountOp::Secret { id, target, env, required, mode, uid, gid } => {
                    key.text(
                        "secret",
                        &format!("{id} {target:?} {env:?} {required} {mode:o} {uid} {gid}"),
                    );
                }
                MountOp::Ssh { id, target, required, mode, uid, gid } => {
                    key.text("ssh", &format!("{id} {target} {required} {mode:o} {uid} {gid}"));
                }
            }
        }
        Ok(Some(key.finish()))
    }

    fn content_of(
        &self,
        source: &Source,
        path: &str,
        task: &Task<'_>,
    ) -> Result<[u8; 32], ExecutorError> {
        let tree = self.tree(source, task)?;
        Ok(copy::gather(&whole(source, path), &[tree])?.content)
    }
}
