//! The fleet of one machine: each instance is a child process.
//!
//! Invariant: no child outlives its parent. Every child's standard input is a pipe whose only
//! writing end the parent holds; the kernel closes it however the parent dies, and a worker drains
//! when its input ends (`muster worker --exit-with-stdin`).
//!
//! A child that is there is not yet one that works: once ready, it prints a line for as long as its
//! work gets on. One that falls silent (stopped, deadlocked, waiting for a disk) is drained, which
//! makes room for another, and killed if it does not end by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::task::TaskTracker;

use crate::fleet::{Answers, Fleet, FleetError, Instance, InstanceId, InstanceState};
use crate::tier::Tier;

/// The line that a worker prints on its standard output once it takes work.
pub const READY_LINE: &str = "ready";
/// What the line begins with that a worker prints while its work gets on.
const ALIVE: &str = "alive";

/// The line that a worker prints while its work gets on, several times within
/// [`LocalFleetOptions::hung_timeout`], with the requests that it has answered.
#[must_use]
pub fn alive_line(answered: u64) -> String {
    format!("{ALIVE} {answered}")
}

/// The requests that a worker says it has answered, where the line tells.
fn answered(line: &str) -> Option<u64> {
    line.strip_prefix(ALIVE)?.trim().parse().ok()
}

/// How often within the time of its silence a worker is looked at. These looks are counted, not
/// the time: where this process itself was stopped, its workers are not to blame.
const LOOKS: u32 = 4;
/// Looks without a line after which a worker is the first to go.
const OVERDUE_LOOKS: u32 = 3;

/// Bounds what glibc's allocator keeps for threads that allocate by turns: a worker's peak after
/// 2,500 photographs fell from 223 MiB to 211 MiB, at no cost in speed. An operator's own value
/// wins.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// How the workers of this machine are run.
#[derive(Clone, Debug)]
pub struct LocalFleetOptions {
    /// The program to run.
    pub program: PathBuf,
    /// Its arguments; `--id <instance id>` is added.
    pub args: Vec<OsString>,
    /// How long a draining worker may take before it is killed.
    pub drain_timeout: Duration,
    /// How long a worker that is ready may print nothing before it counts as hung. It then has as
    /// long, or `drain_timeout` if that is less, until it is killed.
    pub hung_timeout: Duration,
    /// How nice they are to this process and others, 0 to 19: at 5 they get a quarter of a processor
    /// that somebody else wants too, and all of one that nobody does.
    pub nice: u8,
}

/// Workers as child processes of this one.
#[derive(Debug)]
pub struct LocalFleet {
    options: LocalFleetOptions,
    shared: Arc<Shared>,
    next: AtomicU64,
    supervisors: TaskTracker,
}

#[derive(Debug, Default)]
struct Shared {
    /// Keyed by launch number, so that listing is oldest first.
    members: Mutex<BTreeMap<u64, Member>>,
    changed: Notify,
    failed_starts: AtomicU64,
}

#[derive(Debug)]
struct Member {
    id: InstanceId,
    state: InstanceState,
    launched: Instant,
    drain: Arc<Notify>,
    overdue: bool,
    /// When it said last how many requests it had answered.
    answered: Option<(Instant, u64)>,
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, BTreeMap<u64, Member>> {
        self.members
            .lock()
            .expect("no code panics while it holds the fleet")
    }
}

impl LocalFleet {
    /// A fleet without instances.
    pub fn new(options: LocalFleetOptions) -> Self {
        Self {
            options,
            shared: Arc::default(),
            next: AtomicU64::new(1),
            supervisors: TaskTracker::new(),
        }
    }

    fn launch_one(&self) -> Result<(), FleetError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = InstanceId(format!("worker-{number}"));
        let mut command = Command::new(&self.options.program);
        if std::env::var_os(ARENAS.0).is_none() {
            command.env(ARENAS.0, ARENAS.1);
        }
        let child = command
            .args(&self.options.args)
            .arg("--id")
            .arg(&id.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal is the parent's to handle: it drains us when it is time.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| FleetError::Launch {
                program: self.options.program.display().to_string(),
                source,
            })?;
        if self.options.nice > 0 {
            yield_to_others(&child, self.options.nice);
        }
        tracing::info!(instance.id = %id, pid = child.id(), "launched a worker");
        let drain = Arc::new(Notify::new());
        let member = Member {
            id,
            state: InstanceState::Pending,
            launched: Instant::now(),
            drain: Arc::clone(&drain),
            overdue: false,
            answered: None,
        };
        self.shared.members().insert(number, member);
        self.supervisors.spawn(supervise(
            Arc::clone(&self.shared),
            number,
            child,
            drain,
            (self.options.drain_timeout, self.options.hung_timeout),
        ));
        Ok(())
    }

    /// Drains every instance and returns when the last one is reaped.
    pub async fn shut_down(&self) {
        for member in self.shared.members().values_mut() {
            begin_drain(member);
        }
        self.supervisors.close();
        self.supervisors.wait().await;
    }
}

/// Lowers the priority of a worker, which has a process group of its own, and of all its threads.
fn yield_to_others(child: &Child, nice: u8) {
    let group = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|own| rustix::process::setpriority_pgrp(group, (own + i32::from(nice)).min(19)));
    if let Err(error) = lowered {
        // It may have ended already.
        tracing::warn!(%error, "a worker's priority could not be lowered");
    }
}

fn begin_drain(member: &mut Member) {
    if member.state != InstanceState::Draining {
        member.state = InstanceState::Draining;
        member.drain.notify_one();
    }
}

#[async_trait]
impl Fleet for LocalFleet {
    async fn instances(&self) -> Result<Vec<Instance>, FleetError> {
        Ok(self
            .shared
            .members()
            .values()
            .map(|member| Instance {
                id: member.id.clone(),
                state: member.state,
                tier: Tier::Local,
                age: member.launched.elapsed(),
                busy: None,
                overdue: member.overdue && member.state == InstanceState::Running,
                answered: member.answered.map(|(at, count)| Answers {
                    count,
                    age: at.elapsed(),
                }),
            })
            .collect())
    }

    async fn launch(&self, _: Tier, count: u32) -> Result<(), FleetError> {
        for _ in 0..count {
            self.launch_one()?;
        }
        Ok(())
    }

    async fn drain(&self, ids: &[InstanceId]) -> Result<(), FleetError> {
        let mut members = self.shared.members();
        for member in members.values_mut().filter(|m| ids.contains(&m.id)) {
            begin_drain(member);
        }
        Ok(())
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn failed_starts(&self, _: Tier) -> u64 {
        self.shared.failed_starts.load(Ordering::Relaxed)
    }
}

/// Follows one child from its launch to its reaping.
async fn supervise(
    shared: Arc<Shared>,
    number: u64,
    mut child: Child,
    drain: Arc<Notify>,
    (drain_timeout, hung_timeout): (Duration, Duration),
) {
    let stdin = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut reading = true;
    let mut asked = false;
    let mut ready = false;
    let mut looks = tokio::time::interval(hung_timeout / LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_looks = 0;
    let status = loop {
        tokio::select! {
            // What was printed is read before anybody is found silent.
            biased;
            line = lines.next_line(), if reading => match line {
                Ok(Some(line)) if line == READY_LINE => {
                    (ready, silent_looks) = (true, 0);
                    if let Some(member) = shared.members().get_mut(&number)
                        && member.state == InstanceState::Pending
                    {
                        member.state = InstanceState::Running;
                        tracing::info!(
                            instance.id = %member.id,
                            boot_ms = member.launched.elapsed().as_millis() as u64,
                            "a worker is ready"
                        );
                    }
                    shared.changed.notify_one();
                }
                Ok(Some(line)) => {
                    if let Some(member) = shared.members().get_mut(&number) {
                        member.overdue = false;
                        let said = answered(&line).map(|count| (Instant::now(), count));
                        member.answered = said.or(member.answered);
                    }
                    silent_looks = 0;
                }
                Ok(None) | Err(_) => reading = false,
            },
            () = drain.notified() => {
                asked = true;
                break stop(&mut child, drain_timeout).await;
            }
            status = child.wait() => break status,
            _ = looks.tick(), if ready => {
                silent_looks += 1;
                if silent_looks < OVERDUE_LOOKS {
                    continue;
                }
                if let Some(member) = shared.members().get_mut(&number) {
                    member.overdue = true;
                    if silent_looks > LOOKS {
                        tracing::warn!(
                            instance.id = %member.id,
                            pid = child.id(),
                            ?hung_timeout,
                            "a worker shows no progress: another takes its place, and it is stopped"
                        );
                        member.state = InstanceState::Draining;
                    }
                }
                if silent_looks > LOOKS {
                    shared.changed.notify_one();
                    asked = true;
                    break stop(&mut child, drain_timeout.min(hung_timeout)).await;
                }
            }
        }
    };
    drop(stdin);
    // Before it is gone from the list: a controller that misses it must know why.
    if !ready && !asked {
        shared.failed_starts.fetch_add(1, Ordering::Relaxed);
    }
    let member = shared.members().remove(&number);
    if let Some(member) = member {
        match status {
            Ok(status) if asked && status.success() => {
                tracing::info!(instance.id = %member.id, "a worker has drained");
            }
            Ok(status) => {
                tracing::warn!(instance.id = %member.id, %status, asked, "a worker ended");
            }
            Err(error) => {
                tracing::error!(instance.id = %member.id, %error, "could not wait for a worker");
            }
        }
    }
    shared.changed.notify_one();
}

/// SIGTERM, and SIGCONT so that one that is stopped can act on it; SIGKILL at the deadline. Returns
/// once the child is reaped.
async fn stop(
    child: &mut Child,
    drain_timeout: Duration,
) -> std::io::Result<std::process::ExitStatus> {
    let pid = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::CONT] {
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            tracing::warn!(%error, "could not tell a worker to drain");
        }
    }
    if let Ok(status) = timeout(drain_timeout, child.wait()).await {
        return status;
    }
    tracing::warn!(
        ?drain_timeout,
        "a worker did not drain in time and is killed"
    );
    child.kill().await?;
    child.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, drain_timeout: Duration) -> LocalFleet {
        LocalFleet::new(LocalFleetOptions {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            drain_timeout,
            hung_timeout: Duration::from_secs(20),
            nice: 0,
        })
    }

    fn signal(pid: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until the fleet's states are as wanted.
    async fn until(fleet: &LocalFleet, wanted: &[InstanceState]) {
        timeout(Duration::from_secs(20), async {
            loop {
                let now: Vec<_> = fleet
                    .instances()
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|i| i.state)
                    .collect();
                if now == wanted {
                    return;
                }
                fleet.changed().await;
            }
        })
        .await
        .expect("the fleet reaches the wanted states");
    }

    async fn ids(fleet: &LocalFleet) -> Vec<InstanceId> {
        let listed = fleet.instances().await.unwrap();
        listed.into_iter().map(|instance| instance.id).collect()
    }

    #[tokio::test]
    async fn an_instance_is_pending_then_running_then_drained() {
        // Waits for the end of its input in the background, so that the trap runs at once.
        let script = "trap 'exit 0' TERM; exec 3<&0; cat <&3 & echo ready; wait";
        let fleet = shell(script, Duration::from_secs(20));
        fleet.launch(Tier::Local, 1).await.unwrap();
        assert_eq!(fleet.instances().await.unwrap().len(), 1);
        until(&fleet, &[InstanceState::Running]).await;
        fleet.drain(&ids(&fleet).await).await.unwrap();
        assert!(
            fleet
                .instances()
                .await
                .unwrap()
                .iter()
                .all(|i| i.state == InstanceState::Draining)
        );
        until(&fleet, &[]).await;
        assert_eq!(fleet.failed_starts(Tier::Local), 0);
    }

    #[tokio::test]
    async fn a_worker_that_ignores_the_drain_is_killed_at_the_deadline() {
        let fleet = shell("trap '' TERM; echo ready; cat", Duration::from_millis(50));
        fleet.launch(Tier::Local, 1).await.unwrap();
        until(&fleet, &[InstanceState::Running]).await;
        fleet.drain(&ids(&fleet).await).await.unwrap();
        until(&fleet, &[]).await;
    }

    /// It is not waited for as long as one that drains would be.
    #[tokio::test]
    async fn a_worker_that_is_stopped_makes_room_and_one_that_says_it_lives_stays() {
        let folder = tempfile::tempdir().unwrap();
        // The second ignores SIGTERM too, as a deadlocked process does.
        let script = format!(
            "echo $$ > {}/$2; [ $2 = worker-1 ] || trap '' TERM; echo ready; \
             while :; do echo alive 7; sleep 0.05; done",
            folder.path().display()
        );
        let fleet = LocalFleet::new(LocalFleetOptions {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into(), "sh".into()],
            drain_timeout: Duration::from_secs(20),
            hung_timeout: Duration::from_millis(500),
            nice: 0,
        });
        let begun = Instant::now();
        fleet.launch(Tier::Local, 3).await.unwrap();
        until(&fleet, &[InstanceState::Running; 3]).await;
        let pid = |n: u32| {
            let file = folder.path().join(format!("worker-{n}"));
            std::fs::read_to_string(file)
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        };
        for n in [1, 2] {
            signal(pid(n), rustix::process::Signal::STOP);
        }
        let overdue = async {
            while !fleet.instances().await.unwrap()[0].overdue {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), overdue).await.unwrap();
        until(&fleet, &[InstanceState::Running]).await;
        assert_eq!(ids(&fleet).await, [InstanceId("worker-3".to_owned())]);
        assert!(begun.elapsed() < Duration::from_secs(10));
        let left = &fleet.instances().await.unwrap()[0];
        let answers = left.answered.map(|answers| answers.count);
        assert_eq!((left.overdue, answers), (false, Some(7)));
        assert_eq!(fleet.failed_starts(Tier::Local), 0);
    }

    #[tokio::test]
    async fn a_worker_that_dies_before_it_is_ready_is_a_failed_start() {
        let fleet = shell("exit 3", Duration::from_secs(20));
        fleet.launch(Tier::Local, 1).await.unwrap();
        until(&fleet, &[]).await;
        assert_eq!(fleet.failed_starts(Tier::Local), 1);
    }

    #[tokio::test]
    async fn one_that_is_nice_has_a_lower_priority_and_so_has_what_it_starts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("priorities");
        // Of the worker, and of a process that it starts before anybody may have seen it.
        let script = format!(
            "cut -d ' ' -f 19 /proc/self/stat > {0}; cut -d ' ' -f 19 /proc/$$/stat >> {0}; \
             echo ready; exec cat",
            file.display()
        );
        let fleet = LocalFleet::new(LocalFleetOptions {
            nice: 10,
            ..shell(&script, Duration::from_secs(20)).options
        });
        fleet.launch(Tier::Local, 1).await.unwrap();
        until(&fleet, &[InstanceState::Running]).await;
        let own = rustix::process::getpriority_process(None).unwrap();
        let seen = std::fs::read_to_string(file).unwrap();
        let lower = (own + 10).min(19).to_string();
        assert_eq!(seen.lines().last(), Some(&*lower), "{seen}");
        fleet.shut_down().await;
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let fleet = LocalFleet::new(LocalFleetOptions {
            program: "/no/such/muster".into(),
            args: vec![],
            drain_timeout: Duration::ZERO,
            hung_timeout: Duration::from_secs(20),
            nice: 0,
        });
        let error = fleet.launch(Tier::Local, 1).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/muster"), "{error}");
        assert!(fleet.instances().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn shutting_down_reaps_everyone() {
        let fleet = shell("echo ready; exec cat", Duration::from_secs(20));
        fleet.launch(Tier::Local, 3).await.unwrap();
        fleet.shut_down().await;
        assert!(fleet.instances().await.unwrap().is_empty());
    }
}
