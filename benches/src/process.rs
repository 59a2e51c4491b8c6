//! Programs that are measured: their time, the processor time they took, the memory they held.
//!
//! Figures are the kernel's, read from `/proc`: processor time of all threads, and the high-water
//! mark of resident memory, which is sampled because it goes with the process.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::table::Sample;

/// How often the memory of a running program is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// Clock ticks a second in `/proc/PID/stat`, on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a program took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time of all its threads, user and system, in seconds.
    pub(crate) cpu_s: f64,
    /// The most memory that was resident, in bytes.
    pub(crate) rss_bytes_max: u64,
}

/// What a program that ended by itself took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Finished {
    /// From its start to its end, in seconds.
    pub(crate) elapsed_s: f64,
    /// What it used.
    pub(crate) usage: Usage,
}

/// Runs a program to its end. Its output goes nowhere, its errors to ours.
pub(crate) fn finish(command: &mut Command) -> anyhow::Result<Finished> {
    finish_all(std::slice::from_mut(command))
}

/// Runs programs at the same time, to the end of the last. Processor time is the sum of theirs,
/// memory that of the largest.
pub(crate) fn finish_all(commands: &mut [Command]) -> anyhow::Result<Finished> {
    let started = Instant::now();
    let mut children = Vec::with_capacity(commands.len());
    for command in &mut *commands {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        children.push(quiet.spawn().with_context(|| format!("start {command:?}"))?);
    }
    let (over, rss_bytes_max) = (AtomicBool::new(false), AtomicU64::new(0));
    let elapsed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for child in &children {
                    rss_bytes_max.fetch_max(rss_of(child.id()).unwrap_or(0), Ordering::Relaxed);
                }
                std::thread::sleep(SAMPLE_EVERY * children.len() as u32);
            }
        });
        // None is reaped yet: processor time is read from what is left of them.
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let waited = children
            .iter()
            .try_for_each(|child| waitid(WaitId::Pid(pid_of(child)), how).map(|_| ()));
        let elapsed = started.elapsed();
        over.store(true, Ordering::Relaxed);
        waited.map(|()| elapsed)
    })?;
    let mut cpu_s = 0.0;
    for (child, command) in children.iter_mut().zip(commands) {
        cpu_s += cpu_of(child.id())?;
        let status = child.wait()?;
        ensure!(status.success(), "{command:?} failed: {status}");
    }
    let usage = Usage { cpu_s, rss_bytes_max: rss_bytes_max.into_inner() };
    Ok(Finished { elapsed_s: elapsed.as_secs_f64(), usage })
}

impl Finished {
    /// Returns what this and then the next took together.
    pub(crate) fn then(self, next: Self) -> Self {
        let usage = Usage {
            cpu_s: self.usage.cpu_s + next.usage.cpu_s,
            rss_bytes_max: self.usage.rss_bytes_max.max(next.usage.rss_bytes_max),
        };
        Self { elapsed_s: self.elapsed_s + next.elapsed_s, usage }
    }
}

impl From<Finished> for Sample {
    /// Returns the sample of a run without a server.
    fn from(finished: Finished) -> Self {
        Self {
            elapsed_s: finished.elapsed_s,
            client_cpu_s: finished.usage.cpu_s,
            client_rss_bytes: finished.usage.rss_bytes_max,
            ..Self::default()
        }
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Daemon {
    child: Child,
    said: String,
}

impl Daemon {
    /// Starts a program and waits for its line `listening ADDR`; returns the address.
    pub(crate) fn listening(command: &mut Command) -> anyhow::Result<(Self, String)> {
        Self::saying(command, "listening ")
    }

    /// Starts a program and waits for a line that holds `mark`; returns the line's rest.
    pub(crate) fn saying(command: &mut Command, mark: &str) -> anyhow::Result<(Self, String)> {
        let (daemon, [said]) = Self::saying_all(command, [mark])?;
        Ok((daemon, said))
    }

    /// Starts a program and waits for lines that hold `marks`, in this order; returns the lines' rests.
    pub(crate) fn saying_all<const N: usize>(
        command: &mut Command,
        marks: [&str; N],
    ) -> anyhow::Result<(Self, [String; N])> {
        let mut daemon = Self::start(command.stdout(Stdio::piped()))?;
        // It stays the daemon's own, so that the program may go on printing.
        let stdout = daemon.child.stdout.as_mut().context("the output was asked for")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut rests = [const { String::new() }; N];
        for (rest, mark) in rests.iter_mut().zip(marks) {
            *rest = loop {
                let line = lines.next();
                let line =
                    line.with_context(|| format!("{} never said {mark:?}", daemon.said))??;
                if let Some((_, rest)) = line.split_once(mark) {
                    break rest.trim().to_owned();
                }
            };
        }
        drop(lines);
        Ok((daemon, rests))
    }

    /// Starts a program and returns the lines that it prints.
    pub(crate) fn speaking(
        command: &mut Command,
    ) -> anyhow::Result<(Self, Lines<BufReader<ChildStdout>>)> {
        let mut daemon = Self::start(command.stdout(Stdio::piped()))?;
        let stdout = daemon.child.stdout.take().context("the output was asked for")?;
        Ok((daemon, BufReader::new(stdout).lines()))
    }

    /// Starts a program.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let said = format!("{command:?}");
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("start {said}"))?;
        Ok(Self { child, said })
    }

    /// Runs a client of this server by way of `run`, and says what both took.
    pub(crate) fn sample(
        &self,
        run: impl FnOnce() -> anyhow::Result<Finished>,
    ) -> anyhow::Result<Sample> {
        let before = self.usage()?;
        let finished = run()?;
        let after = self.usage()?;
        Ok(Sample {
            server_cpu_s: after.cpu_s - before.cpu_s,
            server_rss_bytes: after.rss_bytes_max,
            ..finished.into()
        })
    }

    /// Returns what it and its children took so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = Usage::default();
        let mut pids = vec![self.child.id()];
        while let Some(pid) = pids.pop() {
            usage.cpu_s += cpu_of(pid)?;
            usage.rss_bytes_max += rss_of(pid)?;
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            pids.extend(
                children.unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>),
            );
        }
        Ok(usage)
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already, which is what was wanted.
        let _ = kill_process(pid_of(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a child's id is not 0")
}

/// Returns the processor time of all threads, past ones too.
fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything, but ends with the last parenthesis; the times are fields 14 and 15.
    let fields = stat.rsplit_once(')').context("a name in /proc/PID/stat")?.1;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    ensure!(ticks.len() == 2, "two times in /proc/{pid}/stat");
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Returns the high-water mark of resident memory.
fn rss_of(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|field| field.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .context("VmHWM in /proc/PID/status")?;
    Ok(kib * 1024)
}
