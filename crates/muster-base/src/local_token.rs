//! The local token: what opens a Muster that wants no API key to whoever runs it, and to nobody else.
//!
//! It is new at each start of a web tier and ends with it. It lies in the data folder, for `cat`, and by
//! the port in the state folder of the account that runs the web tier, where that account's commands find
//! it by the address that they talk to. The web tier holds a lock on both: without it they are of one that
//! was killed, and the token is neither shown nor sent to whoever has the port now.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use muster_jobs::now_ms;
use reqwest::Url;

use crate::api_keys::{ApiKey, Scope, Token};
use crate::backend::data_folder;
use crate::error_chain::ErrorChain;

/// Its file's name in the data folder.
pub const FILE: &str = "local-token";

/// The token of a running web tier. Its files go when it is dropped.
#[derive(Debug)]
pub struct LocalToken {
    key: ApiKey,
    address: SocketAddr,
    token: String,
    files: Vec<(PathBuf, String, File)>,
}

/// The token of a web tier on this machine, as its files have it.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Where that web tier listens.
    pub address: SocketAddr,
    /// What is sent as `Authorization: Bearer …`.
    pub token: String,
}

impl LocalToken {
    /// Makes the token of the web tier at `address`, and writes it where its commands look.
    ///
    /// # Errors
    /// When the data folder can not be written, or the system has no random numbers. Without a state
    /// folder the token counts all the same, and a warning says what that means.
    pub fn issue(data_dir: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let token = Token::fresh()?;
        let key = ApiKey {
            id: token.id.clone(),
            name: FILE.to_owned(),
            secret_sha256: token.hash(),
            scopes: vec![Scope::Admin],
            rate_per_s: None,
            burst: None,
            created_at_ms: now_ms(),
            expires_at_ms: None,
        };
        let token = token.reveal();
        let mut issued = Self {
            key,
            address,
            token,
            files: Vec::new(),
        };
        data_folder::prepare(data_dir, None)?;
        let file = data_dir.join(FILE);
        // That of another web tier which runs on the folder stays.
        if read(&file)?.is_none() {
            let text = format!("{}\n", issued.token);
            let held = write_private(&file, &text)
                .with_context(|| format!("write the local token to {}", file.display()))?;
            issued.files.push((file, text, held));
        }
        if let Err(error) = issued.note_for_commands() {
            tracing::warn!(
                error = %ErrorChain(error.as_ref()),
                "commands will not find the local token by themselves: set MUSTER_API_KEY to what {} \
                 holds",
                data_dir.join(FILE).display()
            );
        }
        Ok(issued)
    }

    fn note_for_commands(&mut self) -> anyhow::Result<()> {
        let note = note(self.address.port())?;
        let folder = note.parent().context("a note lies in a folder")?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
        let text = format!("{} {}\n", self.address, self.token);
        let held =
            write_private(&note, &text).with_context(|| format!("write {}", note.display()))?;
        self.files.push((note, text, held));
        Ok(())
    }

    /// The token as a key that allows everything.
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// The address of the page, which takes the token from it.
    pub fn link(&self) -> String {
        format!("http://{}/#token={}", self.address, self.token)
    }
}

impl Drop for LocalToken {
    fn drop(&mut self) {
        for (file, text, _) in &self.files {
            // Another start may have written its own meanwhile.
            let own = std::fs::read_to_string(file).is_ok_and(|found| found == *text);
            if own && let Err(error) = std::fs::remove_file(file) {
                tracing::warn!(
                    error = %ErrorChain(&error),
                    "the local token in {} was not removed; it opens nothing any more",
                    file.display()
                );
            }
        }
    }
}

/// Removes what an earlier web tier at this port left for commands: it was killed.
///
/// # Errors
/// When the file can not be removed.
pub fn forget(port: u16) -> anyhow::Result<()> {
    // Where there is no place for notes there is none.
    let Ok(note) = note(port) else {
        return Ok(());
    };
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .with_context(|| format!("remove {}, which is of an earlier start", note.display())),
        _ => Ok(()),
    }
}

/// Finds the token of the web tier that `url` leads to: only one on this machine, by its loopback
/// address or by `localhost`, and without TLS, which no Muster has.
///
/// # Errors
/// When its file can not be read.
pub fn find(url: &Url) -> anyhow::Result<Option<Found>> {
    let (true, Some(host), Some(port)) = (
        url.scheme() == "http",
        url.host_str(),
        url.port_or_known_default(),
    ) else {
        return Ok(None);
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    if !is_loopback(host) {
        return Ok(None);
    }
    let Ok(note) = note(port) else {
        return Ok(None);
    };
    let Some(text) = read(&note)? else {
        return Ok(None);
    };
    let found = text.trim_end().split_once(' ').and_then(|(at, token)| {
        let address = at.parse().ok()?;
        let token = token.to_owned();
        Some(Found { address, token })
    });
    let found = found.with_context(|| {
        format!(
            "{} is not as Muster writes it: remove it and start the service again",
            note.display()
        )
    })?;
    // Another address of this machine may be another account's.
    let same = address.map_or(true, |address: IpAddr| found.address.ip() == address);
    Ok(same.then_some(found))
}

/// Reads the token of the newest web tier on a data folder.
///
/// # Errors
/// When the file can not be read.
pub fn in_folder(data_dir: &Path) -> anyhow::Result<Option<String>> {
    let text = read(&data_dir.join(FILE))?;
    Ok(text.map(|text| text.trim_end().to_owned()))
}

/// Whether a host, without its port, is a name or an address of the machine itself.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What a file holds; `None` where it is not there, or the web tier that wrote it does not run any more.
fn read(file: &Path) -> anyhow::Result<Option<String>> {
    let read = || -> io::Result<Option<String>> {
        let mut opened = File::open(file)?;
        match opened.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        opened.read_to_string(&mut text)?;
        Ok(Some(text))
    };
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.with_context(|| format!("read the local token in {}", file.display())),
    }
}

/// Where commands look for the token of the web tier at this port.
fn note(port: u16) -> anyhow::Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .context("find the account's state folder: HOME is not set")?;
    Ok(state.join("muster").join(format!("{FILE}-{port}")))
}

/// Puts a file of mode 0600 in place of whatever stands there, through no link, and locks it.
fn write_private(file: &Path, text: &str) -> io::Result<File> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().lock()?;
    Ok(new.persist(file)?)
}
