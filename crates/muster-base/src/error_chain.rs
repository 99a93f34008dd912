//! Errors as one line that may be logged: the whole chain, without what a client's file is called.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// What lies between the data folder and an object's key.
const OBJECTS: &str = "/objects/";

/// Shows an error with its sources on one line, each once: some libraries repeat what is below.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
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
    let said = without_file(&said);
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

/// The same without the path of an object in the data folder, and what follows upon it: the cause,
/// which the chain has as well.
fn without_file(said: &str) -> Cow<'_, str> {
    let Some(object) = said.find(OBJECTS) else {
        return Cow::Borrowed(said);
    };
    let path = said[..object].rfind(" /").map_or(0, |space| space + 1);
    Cow::Owned(format!("{}(its file)", &said[..path]))
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
        let said = ErrorChain(&error).to_string();
        assert!(!said.contains("anna"), "{said}");
        assert!(
            said.contains("https://s3.eu-central-1.amazonaws.com/in/…"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn no_file_of_an_object_is_named() {
        use object_store::ObjectStoreExt;
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("objects");
        std::fs::create_dir(&objects).unwrap();
        std::fs::write(objects.join("output"), "in the way").unwrap();
        let store = object_store::local::LocalFileSystem::new_with_prefix(&objects).unwrap();
        let key = "output/1/anna: at home.json".into();
        let error = store.put(&key, "{}".into()).await.unwrap_err();
        let said = ErrorChain(&error).to_string();
        assert!(
            !said.contains("anna") && said.contains("(its file)"),
            "{said}"
        );
        assert!(said.contains("os error"), "{said}");
    }

    #[test]
    fn a_chain_says_everything_once_and_on_one_line() {
        let document = "Error performing GET http://s3 in 2ms - 403: <?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>\
                        <Message>No.</Message><RequestId>1</RequestId></Error>";
        let error = anyhow::Error::new(Repeats(std::io::Error::other(document)));
        let error = error.context("open the bucket");
        let said = ErrorChain(error.as_ref()).to_string();
        assert_eq!(said, "open the bucket: could not put: AccessDenied: No.");
    }
}
