//! Boots a process for every instance that the server says is running.
//!
//! An instance is the process group of its user data, run by bash, with a metadata service of its
//! own. EC2 runs user data at the first boot only; here every boot runs it, and `INSTANCE_BOOT`
//! tells it which one it is. An instance that has left a file `power-off` in its folder has shut itself
//! down when its processes have ended, and EC2 is told. Nothing outlives the hypervisor, nor the test
//! process, however that ends; only what leaves its process group escapes.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{imds::Imds, moto, sdk::REGION};

/// How often the server is asked which instances there are.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The file in an instance's folder by which it says that it powers itself off, once it has ended.
const POWER_OFF: &str = "power-off";

/// How much of a console is printed when a test fails.
const CONSOLE_TAIL_BYTES: usize = 8 << 10;

/// Kills the process groups that it was told of and removes their folder, as soon as its standard
/// input closes.
const WATCH: &str = r#"
declare -A groups
while read -r change group; do
    case $change in
        boots) groups[$group]=1 ;;
        gone) unset "groups[$group]" ;;
    esac
done
for group in "${!groups[@]}"; do kill -KILL -- "-$group" 2>/dev/null; done
rm -rf -- "$1"
"#;

/// Which instances boot, and into what.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's URL.
    pub server: String,
    /// The tag, by key and value, of the instances that boot.
    pub tag: (String, String),
    /// What the instances call AWS at: the server, or a proxy before it.
    pub endpoint: String,
    /// More environment variables for the instances.
    pub environment: Vec<(String, String)>,
    /// Programs that come first on the instances' `PATH`, by name and script: `systemctl`, `aws`…
    pub shims: Vec<(String, String)>,
    /// The shortest and longest time from `running` to the first command; the n-th boot takes as
    /// long in every run.
    pub boot_delay: (Duration, Duration),
    /// How long an instance that stops may take before it is killed.
    pub stop_timeout: Duration,
}

impl Settings {
    /// Boots a server's instances that have a tag, at once and with nothing added.
    pub fn new(server: &str, key: &str, value: &str) -> Settings {
        Settings {
            server: server.to_owned(),
            tag: (key.to_owned(), value.to_owned()),
            endpoint: server.to_owned(),
            environment: Vec::new(),
            shims: Vec::new(),
            boot_delay: (Duration::ZERO, Duration::ZERO),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// What runs the instances, until it is dropped.
#[derive(Debug)]
pub struct Hypervisor {
    machines: Arc<Mutex<Machines>>,
    folder: TempDir,
    /// Closing it ends the thread.
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Hypervisor {
    /// Starts to boot instances.
    pub fn start(settings: Settings) -> Hypervisor {
        let folder = TempDir::with_prefix("instances-").unwrap();
        let watch = Command::new("bash")
            .args(["-c", WATCH, "watch"])
            .arg(folder.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start bash");
        let machines = Arc::new(Mutex::new(Machines {
            settings,
            folder: folder.path().to_owned(),
            watch,
            all: BTreeMap::new(),
            booted_total: 0,
            delays: fastrand::Rng::with_seed(0),
        }));
        let (end, ended) = mpsc::channel();
        let thread = {
            let machines = Arc::clone(&machines);
            let run = move || run(&machines, &ended);
            thread::Builder::new()
                .name("hypervisor".to_owned())
                .spawn(run)
        };
        Hypervisor {
            machines,
            folder,
            end: Some(end),
            thread: Some(thread.unwrap()),
        }
    }

    /// How often an instance has booted.
    pub fn booted_total(&self) -> usize {
        self.lock().booted_total
    }

    /// Sets how long boots take from now on, see [`Settings::boot_delay`].
    pub fn set_boot_delay(&self, delay: Duration) {
        self.lock().settings.boot_delay = (delay, delay);
    }

    /// The ids of the instances of which a process is left.
    pub fn alive(&self) -> Vec<String> {
        let mut machines = self.lock();
        let all = machines.all.iter_mut();
        all.filter_map(|(id, machine)| machine.is_alive().then(|| id.clone()))
            .collect()
    }

    /// Kills an instance's processes without telling EC2; returns whether there were any.
    pub fn crash(&self, instance_id: &str) -> bool {
        let mut machines = self.lock();
        let machine = machines.all.get_mut(instance_id);
        machine.is_some_and(|machine| {
            let alive = machine.is_alive();
            machine.signal(Signal::KILL);
            alive
        })
    }

    /// Stops an instance's processes, which stay as they are; returns whether there were any.
    pub fn freeze(&self, instance_id: &str) -> bool {
        let mut machines = self.lock();
        let machine = machines.all.get_mut(instance_id);
        machine.is_some_and(|machine| {
            machine.signal(Signal::STOP);
            machine.is_alive()
        })
    }

    /// Gives an instance notice that Spot takes it back; returns whether it has booted.
    pub fn interrupt(&self, instance_id: &str) -> bool {
        let machines = self.lock();
        let booted = machines.all.get(instance_id);
        let imds = booted.and_then(|machine| machine.imds.as_ref());
        imds.map(Imds::interrupt).is_some()
    }

    /// The folder of an instance: its working directory and `INSTANCE_ROOT`.
    pub fn root(&self, instance_id: &str) -> PathBuf {
        self.folder.path().join(instance_id)
    }

    /// What an instance has printed; nothing before it boots.
    pub fn console(&self, instance_id: &str) -> String {
        console(&self.root(instance_id))
    }

    fn lock(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap()
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        drop(self.end.take());
        let panicked = self.thread.take().is_some_and(|it| it.join().is_err());
        // What the thread left behind a panic is killed all the same.
        let machines = self.machines.lock();
        let mut machines = machines.unwrap_or_else(std::sync::PoisonError::into_inner);
        if thread::panicking() {
            for id in machines.all.keys() {
                let console = console(&self.root(id));
                let tail =
                    console.floor_char_boundary(console.len().saturating_sub(CONSOLE_TAIL_BYTES));
                eprintln!("--- console of {id} ---\n{}", &console[tail..]);
            }
        }
        machines.kill();
        assert!(thread::panicking() || !panicked, "the hypervisor panicked");
    }
}

fn console(root: &Path) -> String {
    // An instance that has not booted has none.
    let bytes = fs::read(root.join("console.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An instance, as the server lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    state: String,
    /// How often it was launched or started.
    boots: u32,
    /// In base64.
    user_data: String,
}

#[derive(Debug)]
struct Machines {
    settings: Settings,
    folder: PathBuf,
    watch: Child,
    all: BTreeMap<String, Machine>,
    booted_total: usize,
    delays: fastrand::Rng,
}

/// An instance that has been seen running.
#[derive(Debug)]
struct Machine {
    /// The boot that this is about, and when it is due.
    boot: u32,
    due: Instant,
    imds: Option<Imds>,
    leader: Option<Leader>,
    stopping_until: Option<Instant>,
}

/// The first process of an instance, whose process group the instance is.
#[derive(Debug)]
struct Leader {
    process: Child,
    group: Pid,
}

fn run(machines: &Mutex<Machines>, ended: &mpsc::Receiver<()>) {
    let (server, tag) = {
        let machines = machines.lock().unwrap();
        (
            machines.settings.server.clone(),
            machines.settings.tag.clone(),
        )
    };
    let request = serde_json::json!({ "tag": tag });
    while ended.recv_timeout(POLL_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        let listed = moto::ask(&server, "instances", &request);
        let listed = listed.unwrap_or_else(|error| panic!("list the instances: {error}"));
        let listed: Vec<Listed> = serde_json::from_value(listed).unwrap();
        machines.lock().unwrap().reconcile(&listed);
    }
}

impl Machines {
    fn reconcile(&mut self, listed: &[Listed]) {
        for instance in listed {
            let running = instance.state == "running";
            let known = self.all.get_mut(&instance.id);
            match known {
                Some(machine) => {
                    let meant = running && machine.boot == instance.boots;
                    if !machine.is_alive() {
                        machine.forget_processes(&mut self.watch);
                        let said = self.folder.join(&instance.id).join(POWER_OFF);
                        if running && fs::remove_file(said).is_ok() {
                            let request = serde_json::json!({ "id": instance.id });
                            moto::ask(&self.settings.server, "power-off", &request)
                                .unwrap_or_else(|error| panic!("power off: {error}"));
                            continue;
                        }
                    } else if !meant {
                        machine.stop(self.settings.stop_timeout);
                    }
                    if running && !meant && machine.leader.is_none() {
                        self.plan(instance);
                    }
                }
                None if running => self.plan(instance),
                None => {}
            }
            let due = |machine: &Machine| {
                machine.imds.is_none() && running && machine.due <= Instant::now()
            };
            if self.all.get(&instance.id).is_some_and(due) {
                self.boot(instance);
            }
        }
    }

    fn plan(&mut self, instance: &Listed) {
        let (shortest, longest) = self.settings.boot_delay;
        let part = self.delays.f64();
        let delay = shortest + longest.saturating_sub(shortest).mul_f64(part);
        let machine = Machine {
            boot: instance.boots,
            due: Instant::now() + delay,
            imds: None,
            leader: None,
            stopping_until: None,
        };
        self.all.insert(instance.id.clone(), machine);
    }

    fn boot(&mut self, instance: &Listed) {
        let root = self.folder.join(&instance.id);
        let user_data = BASE64_STANDARD.decode(&instance.user_data).unwrap();
        let imds = Imds::start(&instance.id, &String::from_utf8_lossy(&user_data));
        let programs = root.join("bin");
        fs::create_dir_all(&programs).unwrap();
        for (name, script) in &self.settings.shims {
            let path = programs.join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // As cloud-init leaves it, which runs user data.
        let cloud_init = root.join("var/lib/cloud/data");
        fs::create_dir_all(&cloud_init).unwrap();
        fs::write(cloud_init.join("instance-id"), &instance.id).unwrap();
        let script = root.join("user-data");
        fs::write(&script, &user_data).unwrap();
        let console = fs::File::options()
            .create(true)
            .append(true)
            .open(root.join("console.log"))
            .unwrap();

        let mut command = Command::new("bash");
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs].into_iter().chain(env::split_paths(&inherited)));
        let environment = self.settings.environment.iter();
        let process = command
            .arg(&script)
            .current_dir(&root)
            .process_group(0)
            .env("PATH", path.unwrap())
            .env("HOME", &root)
            .env("INSTANCE_ROOT", &root)
            .env("INSTANCE_BOOT", instance.boots.to_string())
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.endpoint())
            .env("AWS_ENDPOINT_URL", &self.settings.endpoint)
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .envs(environment.map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap_or_else(|error| panic!("boot {}: {error}", instance.id));
        let group = Pid::from_child(&process);
        tell(&mut self.watch, "boots", group).unwrap();
        let machine = self.all.get_mut(&instance.id).unwrap();
        machine.imds = Some(imds);
        machine.leader = Some(Leader { process, group });
        self.booted_total += 1;
    }

    /// Kills every instance, and waits for their first processes and for what watches over them.
    fn kill(&mut self) {
        for machine in self.all.values_mut() {
            machine.signal(Signal::KILL);
            if let Some(mut leader) = machine.leader.take() {
                // An error means that it was reaped before.
                let _ = leader.process.wait();
            }
        }
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

impl Machine {
    fn is_alive(&mut self) -> bool {
        let Some(leader) = &mut self.leader else {
            return false;
        };
        // Reaps it: a process that has ended is a member of its group until then.
        let running = matches!(leader.process.try_wait(), Ok(None));
        running || test_kill_process_group(leader.group).is_ok()
    }

    fn stop(&mut self, timeout: Duration) {
        match self.stopping_until {
            None => {
                self.stopping_until = Some(Instant::now() + timeout);
                self.signal(Signal::TERM);
                // As systemd does, so that what is stopped can act on it.
                self.signal(Signal::CONT);
            }
            Some(until) if until <= Instant::now() => self.signal(Signal::KILL),
            Some(_) => {}
        }
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(leader) = &self.leader {
            // An error means that the group has ended by itself.
            let _ = kill_process_group(leader.group, signal);
        }
    }

    /// Forgets the processes of an instance that have all ended.
    fn forget_processes(&mut self, watch: &mut Child) {
        if let Some(leader) = self.leader.take() {
            tell(watch, "gone", leader.group).unwrap();
        }
    }
}

/// Tells the watching script of a process group.
fn tell(watch: &mut Child, change: &str, group: Pid) -> io::Result<()> {
    let stdin = watch.stdin.as_mut().expect("stdin is piped");
    writeln!(stdin, "{change} {}", group.as_raw_nonzero())
}
