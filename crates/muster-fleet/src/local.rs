//! The fleet of one machine: each instance is a child process.
//!
//! Invariant: no child outlives its parent. Every child's standard input is a pipe whose only
//! writing end the parent holds; the kernel closes it however the parent dies, and a worker drains
//! when its input ends (`muster worker --exit-with-stdin`).

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
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::fleet::{Fleet, FleetError, Instance, InstanceId, InstanceState};

/// The line that a worker prints on its standard output once it takes work.
pub const READY_LINE: &str = "ready";

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
        tracing::info!(instance.id = %id, pid = child.id(), "launched a worker");
        let drain = Arc::new(Notify::new());
        let member = Member {
            id,
            state: InstanceState::Pending,
            launched: Instant::now(),
            drain: Arc::clone(&drain),
        };
        self.shared.members().insert(number, member);
        self.supervisors.spawn(supervise(
            Arc::clone(&self.shared),
            number,
            child,
            drain,
            self.options.drain_timeout,
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
                age: member.launched.elapsed(),
                busy: None,
            })
            .collect())
    }

    async fn launch(&self, count: u32) -> Result<(), FleetError> {
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

    fn failed_starts(&self) -> u64 {
        self.shared.failed_starts.load(Ordering::Relaxed)
    }
}

/// Follows one child from its launch to its reaping.
async fn supervise(
    shared: Arc<Shared>,
    number: u64,
    mut child: Child,
    drain: Arc<Notify>,
    drain_timeout: Duration,
) {
    let stdin = child.stdin.take();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut reading = true;
    let mut asked = false;
    let mut ready = false;
    let status = loop {
        tokio::select! {
            line = lines.next_line(), if reading => match line {
                Ok(Some(line)) if line == READY_LINE => {
                    ready = true;
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
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => reading = false,
            },
            () = drain.notified() => {
                asked = true;
                break stop(&mut child, drain_timeout).await;
            }
            status = child.wait() => break status,
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

/// SIGTERM, then SIGKILL at the deadline; returns once the child is reaped.
async fn stop(
    child: &mut Child,
    drain_timeout: Duration,
) -> std::io::Result<std::process::ExitStatus> {
    let pid = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        tracing::warn!(%error, "could not tell a worker to drain");
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
        })
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
        fleet.launch(1).await.unwrap();
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
        assert_eq!(fleet.failed_starts(), 0);
    }

    #[tokio::test]
    async fn a_worker_that_ignores_the_drain_is_killed_at_the_deadline() {
        let fleet = shell("trap '' TERM; echo ready; cat", Duration::from_millis(50));
        fleet.launch(1).await.unwrap();
        until(&fleet, &[InstanceState::Running]).await;
        fleet.drain(&ids(&fleet).await).await.unwrap();
        until(&fleet, &[]).await;
    }

    #[tokio::test]
    async fn a_worker_that_dies_before_it_is_ready_is_a_failed_start() {
        let fleet = shell("exit 3", Duration::from_secs(20));
        fleet.launch(1).await.unwrap();
        until(&fleet, &[]).await;
        assert_eq!(fleet.failed_starts(), 1);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let fleet = LocalFleet::new(LocalFleetOptions {
            program: "/no/such/muster".into(),
            args: vec![],
            drain_timeout: Duration::ZERO,
        });
        let error = fleet.launch(1).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/muster"), "{error}");
        assert!(fleet.instances().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn shutting_down_reaps_everyone() {
        let fleet = shell("echo ready; exec cat", Duration::from_secs(20));
        fleet.launch(3).await.unwrap();
        fleet.shut_down().await;
        assert!(fleet.instances().await.unwrap().is_empty());
    }
}
