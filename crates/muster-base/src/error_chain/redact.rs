//! Takes the names of objects out of what errors say: a client's file, and often a person, is called so.

use std::borrow::Cow;
use std::error::Error;

/// What lies between the data folder and an object's key.
const OBJECTS: &str = "/objects/";

/// What one error of a chain says, without the name of an object: it holds the name of a client's
/// file, and often a person's.
pub fn without_object_names(error: &(dyn Error + 'static)) -> String {
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

/// What an error says, up to the path of an object in the data folder: what follows upon it, the cause,
/// is in the chain as well.
fn without_file(said: &str) -> Cow<'_, str> {
    let Some(object) = said.find(OBJECTS) else {
        return Cow::Borrowed(said);
    };
    let path = said[..object].rfind(" /").map_or(0, |space| space + 1);
    Cow::Owned(format!("{}(its file)", &said[..path]))
}
