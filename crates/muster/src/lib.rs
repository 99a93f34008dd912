//! Muster's roles and commands.
//!
//! `cli` is the front door: each command is one arm there and one module here.

mod api_keys;
mod audit;
mod aws;
mod backend;
mod bench;
mod catalogue;
pub mod cli;
mod client;
mod config;
mod controller;
pub mod cpu;
mod doctor;
mod enroll;
mod eval;
mod gallery;
mod live_gallery;
pub mod logging;
mod models;
mod pauses;
mod photos;
mod profile;
mod progress;
mod recognize;
mod signals;
mod simulate;
mod status;
mod up;
mod verify;
mod web;
mod worker;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Says on standard error what ended a command, and where the trouble is with AWS what to do about
/// it; the exit code tells the kinds of trouble apart.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("muster: {}", Chain(error.as_ref()));
    match aws::Trouble::of(error.as_ref()) {
        Some(trouble) => {
            eprintln!("muster: {}", trouble.remedy());
            ExitCode::from(trouble.exit_code())
        }
        None => ExitCode::FAILURE,
    }
}

/// Shows an error with its sources on one line, each once: some libraries repeat what is below.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = one_line(&link(self.0));
        let mut source = self.0.source();
        while let Some(error) = source {
            let more = one_line(&link(error));
            if !said.contains(&more) {
                said = format!("{said}: {more}");
            }
            source = error.source();
        }
        f.write_str(&said)
    }
}

/// What one error of a chain says, without the name of an object: it holds the name of a client's
/// file, and often a person's.
fn link(error: &(dyn Error + 'static)) -> String {
    use object_store::Error as Store;
    let said = error.to_string();
    let path = match error.downcast_ref() {
        Some(
            Store::NotFound { path, .. }
            | Store::AlreadyExists { path, .. }
            | Store::Precondition { path, .. }
            | Store::NotModified { path, .. }
            | Store::PermissionDenied { path, .. }
            | Store::Unauthenticated { path, .. },
        ) if !path.is_empty() => path.as_str(),
        _ => "",
    };
    let said = if path.is_empty() {
        said
    } else {
        said.replace(path, "(its key)")
    };
    // Of a URL, the server and the bucket.
    said.split_inclusive(' ')
        .map(|word| match word.split_once("://") {
            Some((scheme, rest)) if scheme.ends_with("http") || scheme.ends_with("https") => {
                let kept: Vec<_> = rest.trim_end().splitn(3, '/').take(2).collect();
                let cut = rest.trim_end().matches('/').count() > 1;
                let end = if word.ends_with(' ') { " " } else { "" };
                let more = if cut { "/…" } else { "" };
                format!("{scheme}://{}{more}{end}", kept.join("/"))
            }
            _ => word.to_owned(),
        })
        .collect()
}

/// Puts what S3 answers, an XML document, as its code and sentence, without object_store's account of
/// the call.
fn one_line(text: &str) -> String {
    const END: &str = "</Error>";
    const CALL: &str = "Error performing";
    let document = text.find("<?xml").or_else(|| text.find("<Error>"));
    let Some(start) = document else {
        return text.replace('\n', " ");
    };
    let (before, document) = text.split_at(start);
    let element = |name: &str| {
        let (_, after) = document.split_once(&format!("<{name}>"))?;
        Some(after.split_once(&format!("</{name}>"))?.0)
    };
    let (Some(code), Some((_, after))) = (element("Code"), document.split_once(END)) else {
        return text.replace('\n', " ");
    };
    let message = element("Message").unwrap_or_default();
    let before = before.split(CALL).next().unwrap_or_default();
    let before = before.strip_prefix("Generic S3 error: ").unwrap_or(before);
    format!("{before}{code}: {message}{after}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not put: {0}")]
    struct Repeats(#[source] std::io::Error);

    #[test]
    fn no_object_is_named() {
        let url = "Error performing GET https://s3.eu-central-1.amazonaws.com/in/1/anna.jpg in 2ms";
        let error = object_store::Error::NotFound {
            path: "1/anna.jpg".to_owned(),
            source: url.into(),
        };
        let said = Chain(&error).to_string();
        assert!(!said.contains("anna"), "{said}");
        assert!(
            said.contains("https://s3.eu-central-1.amazonaws.com/in/…"),
            "{said}"
        );
    }

    #[test]
    fn a_chain_says_everything_once_and_on_one_line() {
        let document = "Error performing GET http://s3 in 2ms - 403: <?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>\
                        <Message>No.</Message><RequestId>1</RequestId></Error>";
        let error = anyhow::Error::new(Repeats(std::io::Error::other(document)));
        let error = error.context("open the bucket");
        let said = Chain(error.as_ref()).to_string();
        assert_eq!(said, "open the bucket: could not put: AccessDenied: No.");
    }
}
