//! The key of a RUN: everything that can change the bytes of its layer.

use planner::plan::{MountOp, RunOp, Source, Step};

use super::mounts::whole;
use crate::{
    copy::{self, Gathered},
    error::ExecutorError,
    execute::{
        Execution,
        find::{Found, Keyed, Missing},
    },
    key::KeyBuilder,
    session::Task,
    tree::{Chain, Tree},
};

impl Execution<'_> {
    /// Looks a RUN up.
    pub(crate) fn find_run(
        &self,
        step: &Step,
        op: &RunOp,
        parent: &Chain,
        task: &Task<'_>,
    ) -> Result<Found, ExecutorError> {
        let fast = self.run_key(step, op, parent, None, task)?;
        if let Some((key, _)) = &fast
            && let Some(record) = self.look_up(step, key)?
        {
            return Ok(Found::Known(Box::new(record)));
        }
        let has_binds = op.mounts.iter().any(|it| matches!(it, MountOp::Bind { .. }));
        let mut read = Vec::new();
        match fast {
            Some(key) if !has_binds => Ok(Found::Missing(Missing::plain(key))),
            _ if !self.can_read(crate::execute::sources(step))? => Ok(Found::OutOfReach),
            fast => match self.run_key(step, op, parent, Some(&mut read), task)? {
                Some(key) => self.find_by_contents(step, Missing { key, fast, read }),
                None => Err(ExecutorError::Canceled),
            },
        }
    }

    /// The key of a RUN. With `read` mounts count by what is in them, and what that was is added; without by the layers they
    /// come from, and there is no key if some of them come from no layers.
    pub(crate) fn run_key(
        &self,
        step: &Step,
        op: &RunOp,
        parent: &Chain,
        mut read: Option<&mut Vec<(Vec<Tree>, Gathered)>>,
        task: &Task<'_>,
    ) -> Result<Option<Keyed>, ExecutorError> {
        let content = read.is_some();
        let mut key = KeyBuilder::new(if content { "run with contents" } else { "run" });
        key.digest("parent", &parent.id());
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
                            key.digest("of", &self.chain(source)?.id());
                        }
                        _ => {
                            let Some(read) = &mut read else { return Ok(None) };
                            let trees = vec![self.tree(source, task)?];
                            let gathered = copy::gather(&whole(source, path), &trees)?;
                            key.digest("of", &gathered.content);
                            read.push((trees, gathered));
                        }
                    }
                }
                MountOp::Cache { target, seed, read_only, .. } => {
                    key.text("cache", &format!("{target} {read_only}"));
                    if let Some((source, path)) = seed {
                        key.text("seed", path);
                        key.digest("of", &self.chain(source)?.id());
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
}
