//! Limits of what a command may use: the same for `kiln build` and `kiln run`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use sandbox::CgroupLimits;

use crate::{
    failure::{Failure, Result},
    values::{
        limit::{cpus, number, pids},
        size::{size, size_or_unlimited},
    },
};

/// Docker's, too: with less the kernel can start nothing.
const LEAST_MEMORY: u64 = 6 << 20;

/// The arguments that control groups enforce. What this machine cannot enforce is a warning.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct LimitArgs {
    /// The most memory that a command may use
    #[arg(short, long, value_name = "BYTES", value_parser = size, help_heading = "Limits")]
    pub memory: Option<u64>,
    /// The most memory and swap together; -1 is no limit of swap
    #[arg(long, value_name = "BYTES", value_parser = size_or_unlimited, allow_negative_numbers = true, help_heading = "Limits")]
    pub memory_swap: Option<u64>,
    /// How many processors it may use, for example `1.5`
    #[arg(long, value_name = "NUMBER", value_parser = cpus, help_heading = "Limits", conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub cpus: Option<f64>,
    /// Its weight against others; 1024 is usual
    #[arg(short = 'c', long, value_name = "NUMBER", value_parser = number, help_heading = "Limits")]
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "NUMBER", value_parser = number, help_heading = "Limits")]
    pub cpu_quota: Option<u64>,
    /// The length of a period in microseconds [default: 100000]
    #[arg(long, value_name = "NUMBER", value_parser = number, help_heading = "Limits")]
    pub cpu_period: Option<u64>,
    /// The processors that it may use, for example `0-2,4`
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that it may use
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,
    /// How many processes and threads it may have; -1 is no limit [default: 2048]
    #[arg(long, value_name = "NUMBER", value_parser = pids, allow_negative_numbers = true, help_heading = "Limits")]
    pub pids_limit: Option<i64>,
    /// The control group above its own
    #[arg(long, value_name = "PATH", help_heading = "Limits")]
    pub cgroup_parent: Option<String>,
}

impl LimitArgs {
    /// The limits for the sandbox.
    ///
    /// # Errors
    ///
    /// Fails where they do not fit together, or no machine could do with them.
    pub fn limits(&self) -> Result<CgroupLimits> {
        let wrong = |message: String, hint: &str| Err(Failure::input(anyhow!(message)).hint(hint));
        match (self.memory, self.memory_swap) {
            (Some(memory), _) if memory < LEAST_MEMORY => {
                return wrong(
                    format!("`--memory` of {memory} bytes is too little"),
                    "give it at least 6m",
                );
            }
            (None, Some(_)) => {
                return wrong("`--memory-swap` needs `--memory`".to_owned(), "add `--memory`");
            }
            (Some(memory), Some(swap)) if swap < memory => {
                return wrong(
                    format!("`--memory-swap` of {swap} bytes is less than `--memory`"),
                    "it counts memory and swap together",
                );
            }
            _ => {}
        }
        let pids = match self.pids_limit {
            None => Some(CgroupLimits::DEFAULT_PIDS),
            Some(number) => u64::try_from(number).ok().filter(|it| *it > 0),
        };
        Ok(CgroupLimits {
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids,
            is_pids_asked: self.pids_limit.is_some(),
            parent: self.cgroup_parent.clone().map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_fit() {
        let usual = LimitArgs::default().limits().expect("limits");
        assert_eq!(usual, CgroupLimits::usual());
        let pids = |number| {
            let args = LimitArgs { pids_limit: Some(number), ..LimitArgs::default() };
            args.limits().map(|it| (it.pids, it.is_pids_asked)).expect("limits")
        };
        assert_eq!((pids(-1), pids(0), pids(7)), ((None, true), (None, true), (Some(7), true)));
        for (memory, swap, is_right) in [
            (Some(1), None, false),
            (Some(6 << 20), None, true),
            (None, Some(8 << 20), false),
            (Some(8 << 20), Some(7 << 20), false),
            (Some(8 << 20), Some(u64::MAX), true),
        ] {
            let args = LimitArgs { memory, memory_swap: swap, ..LimitArgs::default() };
            assert_eq!(args.limits().is_ok(), is_right, "{args:?}");
        }
    }
}
