//! Photographs as they come in: multipart forms, read with a limit on everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use muster_jobs::{Failure, FailureCode, FileName};
use muster_recognize::decode::{self, DecodeLimits};

use crate::api::problem::ApiError;
use crate::forms::fields::{Fields, FormField};
use crate::forms::memory::{ReservedMemory, UploadMemory};
use crate::forms::printable::printable;
use muster_api::problem::{Code, Refused};

/// A refused body is read to its end up to this size, so that the client gets to read the answer
/// instead of a reset connection.
const MAX_DRAINED_BYTES: usize = 256 << 20;
/// Longest text field, in bytes: enough for any name.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Most fields in a form besides the photographs.
const MAX_OTHER_FIELDS: usize = 16;

/// What a form may hold.
#[derive(Clone, Copy, Debug)]
pub struct FormRules<'a> {
    /// Names of the field with a photograph.
    pub photo_fields: &'a [&'a str],
    /// Fewest photographs.
    pub min_photos: usize,
    /// Most photographs.
    pub max_photos: usize,
    /// Names of the fields with text, and how many bytes each may have.
    pub text_fields: &'a [(&'static str, usize)],
    /// Each photograph's limits.
    pub limits: &'a DecodeLimits,
    /// Whether an unfit photograph is refused alone, in [`Form::refused`], or the whole form with it.
    pub apart: bool,
}

/// One uploaded photograph, recognised as one by its first bytes only.
#[derive(Clone, Debug)]
pub struct Photo {
    /// The client's file name.
    pub file: FileName,
    /// The photograph as uploaded.
    pub bytes: Bytes,
    /// The memory that it takes, given back with the last copy of it.
    pub memory: Arc<ReservedMemory>,
}

/// A form as it was read.
#[derive(Debug)]
pub struct Form {
    /// The photographs.
    pub photos: Vec<Photo>,
    /// The photographs that were refused alone: the place among all, the name, and why.
    pub refused: Vec<(usize, FileName, ApiError)>,
    texts: BTreeMap<&'static str, String>,
}

impl Form {
    /// The text in a field, where the form has it.
    pub fn text(&mut self, field: &str) -> Option<String> {
        self.texts.remove(field)
    }
}

/// Reads a form within its rules.
///
/// # Errors
/// 400 for a form of another kind, 413 and 415 for a photograph that is too large or in a format that
/// is not read, 429 while the memory for uploads is used up. The rest of a refused body is read and
/// dropped, up to a limit.
pub async fn read_form(
    request: Request,
    rules: FormRules<'_>,
    memory: &UploadMemory,
) -> Result<Form, ApiError> {
    let mut fields = Fields::of(request).await.map_err(|_| {
        ApiError::bad_request(format!(
            "the request has no multipart form: send one with the photograph in the field {}",
            rules.photo_fields[0]
        ))
    })?;
    let form = read_fields(&mut fields, rules, memory).await;
    if form.is_err() {
        let mut drained = 0;
        // The request is refused already: what else is wrong with it does not matter.
        while let Ok(Some(mut field)) = fields.next().await {
            drain(&mut field, &mut drained).await;
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        }
    }
    form
}

async fn read_fields(
    fields: &mut Fields,
    rules: FormRules<'_>,
    memory: &UploadMemory,
) -> Result<Form, ApiError> {
    let mut reading = Reading {
        form: Form {
            photos: Vec::new(),
            refused: Vec::new(),
            texts: BTreeMap::new(),
        },
        bytes: 0,
        ignored: Vec::new(),
    };
    while let Some(mut field) = fields.next().await? {
        if let Err(refusal) = reading.read(&mut field, &rules, memory).await {
            drain(&mut field, &mut 0).await;
            return Err(refusal);
        }
    }
    let form = reading.form;
    let count = form.photos.len() + form.refused.len();
    if count < rules.min_photos {
        let field = rules.photo_fields[0];
        return Err(ApiError::bad_request(match rules.min_photos {
            1 => match reading.ignored.first() {
                Some(other) => format!(
                    "the form has a field {other} and no field {field}: put the photograph in {field}"
                ),
                None => format!("the form has no field {field}: put the photograph there"),
            },
            least => format!(
                "the form has {count} photographs in fields {field}, and {least} are needed: send \
                 them in one form"
            ),
        }));
    }
    Ok(form)
}

/// Reads the rest of a field, up to a limit, and drops it.
async fn drain(field: &mut FormField<'_>, drained: &mut usize) {
    while *drained <= MAX_DRAINED_BYTES
        && let Ok(Some(chunk)) = field.chunk().await
    {
        *drained += chunk.len();
    }
}

/// What was read of a form so far.
struct Reading {
    form: Form,
    /// Bytes of all photographs together.
    bytes: usize,
    /// The names of the fields that are not known.
    ignored: Vec<String>,
}

impl Reading {
    async fn read(
        &mut self,
        field: &mut FormField<'_>,
        rules: &FormRules<'_>,
        memory: &UploadMemory,
    ) -> Result<(), ApiError> {
        let Form {
            photos,
            refused,
            texts,
        } = &mut self.form;
        let field_name = field.name().to_owned();
        if rules.photo_fields.contains(&field_name.as_str()) {
            let number = photos.len() + refused.len();
            if number == rules.max_photos {
                return Err(match rules.max_photos {
                    1 => ApiError::bad_request(format!(
                        "the form has several fields {field_name}: send one photograph a request"
                    )),
                    most => ApiError::new(
                        Code::ImageTooMany,
                        format!("the form has more than {most} photographs: send fewer at a time"),
                    ),
                });
            }
            let file = FileName::from_client(field.file_name().as_deref().unwrap_or("photo"));
            let mut reserved = memory.reserve();
            let room = memory.limit - self.bytes;
            match read_photo(field, &file, rules.limits, &mut reserved, room).await? {
                Ok(bytes) => {
                    self.bytes += bytes.len();
                    photos.push(Photo {
                        file,
                        bytes,
                        memory: Arc::new(reserved),
                    });
                }
                Err(error) if rules.apart => refused.push((number, file, error)),
                Err(error) => return Err(error),
            }
        } else if let Some((known, limit)) = rules.text_fields.iter().find(|of| of.0 == field_name)
        {
            let bytes = read_text(field, *limit).await?;
            let text = String::from_utf8(bytes).map_err(|_| {
                ApiError::bad_request(format!(
                    "the field {known} is not UTF-8 text: send it as UTF-8"
                ))
            })?;
            if texts.insert(*known, text).is_some() {
                return Err(ApiError::bad_request(format!(
                    "the form has several fields {known}: send one"
                )));
            }
        } else {
            if self.ignored.len() == MAX_OTHER_FIELDS {
                return Err(ApiError::bad_request(format!(
                    "the form has more than {MAX_OTHER_FIELDS} fields that Muster does not know"
                )));
            }
            // A field that nobody asked for may be text; what is longer is a photograph in the
            // wrong place.
            let mut bytes = 0;
            while let Some(chunk) = field.chunk().await? {
                bytes += chunk.len();
                if bytes > MAX_TEXT_BYTES {
                    return Err(ApiError::bad_request(format!(
                        "Muster does not know the form's field {}: put the photograph in the field {}",
                        printable(&field_name),
                        rules.photo_fields[0]
                    )));
                }
            }
            self.ignored.push(printable(&field_name));
        }
        Ok(())
    }
}

/// Reads one photograph, of at most `room` bytes. The inner error refuses the photograph, the outer one the
/// form.
async fn read_photo(
    field: &mut FormField<'_>,
    file: &FileName,
    limits: &DecodeLimits,
    reserved: &mut ReservedMemory,
    room: usize,
) -> Result<Result<Bytes, ApiError>, ApiError> {
    let mut bytes = BytesMut::new();
    let mut excess = 0;
    while let Some(chunk) = field.chunk().await? {
        if bytes.len() + chunk.len() > limits.max_bytes {
            excess += chunk.len();
            if bytes.len() + excess > MAX_DRAINED_BYTES {
                break;
            }
            continue;
        }
        if excess == 0 {
            // Where nobody else uploads it would not fit either: to try again is no use.
            if bytes.len() + chunk.len() > room {
                return Err(ApiError::new(
                    Code::ImageTooLarge,
                    format!(
                        "the photographs have more than {} bytes together: send fewer at a time",
                        reserved.memory.limit
                    ),
                ));
            }
            reserved.add(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
    }
    let bytes = bytes.freeze();
    let probed = if excess > 0 {
        Err(Failure {
            code: FailureCode::ImageTooLarge,
            detail: format!(
                "more than {} bytes: send a smaller photograph",
                limits.max_bytes
            ),
        })
    } else {
        decode::probe(&bytes, limits).map_err(|error| Failure::from(&error))
    };
    match probed {
        Ok(_) => Ok(Ok(bytes)),
        Err(mut failure) => {
            failure.detail = format!("{}: {}", file.as_str(), failure.detail);
            let refused = refusal(file, &failure);
            Ok(Err(
                ApiError::from(failure).with(|members| members.refused = Some(vec![refused]))
            ))
        }
    }
}

/// A photograph that was stored earlier, in memory again.
///
/// # Errors
/// 429 where the memory for uploads is used up.
pub fn stored_photo(
    file: FileName,
    bytes: Bytes,
    memory: &UploadMemory,
) -> Result<Photo, ApiError> {
    let mut reserved = memory.reserve();
    reserved.add(bytes.len())?;
    Ok(Photo {
        file,
        bytes,
        memory: Arc::new(reserved),
    })
}

/// How a refusal of several photographs names each of them.
pub fn refusal(file: &FileName, failure: &Failure) -> Refused {
    Refused {
        file: file.as_str().to_owned(),
        code: failure.code,
        detail: failure.detail.clone(),
    }
}

async fn read_text(field: &mut FormField<'_>, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > limit {
            return Err(ApiError::new(
                Code::RequestTooLarge,
                format!(
                    "the form's field {} has more than {limit} bytes: shorten it",
                    printable(field.name())
                ),
            ));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use axum::http::header;

    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_beside_others_may_come_again_and_what_never_fits_may_not() {
        let memory = UploadMemory::new(10_000);
        let limits = DecodeLimits::default();
        let rules = FormRules {
            photo_fields: &["image"],
            min_photos: 1,
            max_photos: 1,
            text_fields: &[],
            limits: &limits,
            apart: false,
        };
        let refused = async |bytes: usize| {
            let head = "--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n";
            let body = format!("{head}{}\r\n--x--\r\n", "a".repeat(bytes));
            let request = Request::builder()
                .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x")
                .body(Body::from(body))
                .unwrap();
            read_form(request, rules, &memory).await.unwrap_err().code()
        };
        assert_eq!(refused(10_000).await, Code::ImageUnsupported);
        assert_eq!(refused(10_001).await, Code::ImageTooLarge);
        let mut other = memory.reserve();
        other.add(1).unwrap();
        assert_eq!(refused(10_000).await, Code::Overloaded);
        assert_eq!(refused(10_001).await, Code::ImageTooLarge);
    }

    #[tokio::test]
    async fn a_photograph_in_a_wrong_field_of_any_size_is_told_the_right_one() {
        let limits = DecodeLimits::default();
        let rules = FormRules {
            photo_fields: &["image"],
            min_photos: 1,
            max_photos: 1,
            text_fields: &[("name", MAX_TEXT_BYTES)],
            limits: &limits,
            apart: false,
        };
        for bytes in [0, 100, MAX_TEXT_BYTES, MAX_TEXT_BYTES + 1, 3_000_000] {
            let head = "--x\r\nContent-Disposition: form-data; name=\"photo\"\r\n\r\n";
            let body = format!("{head}{}\r\n--x--\r\n", "a".repeat(bytes));
            let request = Request::builder()
                .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x")
                .body(Body::from(body))
                .unwrap();
            let refused = read_form(request, rules, &UploadMemory::new(9_000_000)).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::RequestInvalid, "{bytes}");
            let detail = refused.detail();
            assert!(
                detail.contains("field photo") && detail.contains("in the field image")
                    || detail.contains("photograph in image"),
                "{bytes}: {detail}"
            );
        }
    }

    #[tokio::test]
    async fn a_form_that_is_refused_is_read_to_its_end() {
        let limits = DecodeLimits::default();
        let rules = FormRules {
            photo_fields: &["image"],
            min_photos: 1,
            max_photos: 1,
            text_fields: &[("name", MAX_TEXT_BYTES)],
            limits: &limits,
            apart: true,
        };
        // Too much for the memory; a second photograph; a text that is too long.
        for (names, room) in [
            (["image", "image"], 1_000_000),
            (["image", "image"], 9_000_000),
            (["name", "image"], 9_000_000),
        ] {
            let field = |name| {
                let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n");
                format!("{head}\r\n{}\r\n", "a".repeat(3_000_000))
            };
            let body = Bytes::from(names.map(field).concat() + "--x--\r\n");
            let read = Arc::new(AtomicUsize::new(0));
            let (whole, count) = (body.len(), Arc::clone(&read));
            let chunks = (0..whole).step_by(50_000).map(move |at| {
                let chunk = body.slice(at..whole.min(at + 50_000));
                count.fetch_add(chunk.len(), Ordering::Relaxed);
                Ok::<_, std::io::Error>(chunk)
            });
            let request = Request::builder()
                .header(header::CONTENT_TYPE, "multipart/form-data; boundary=x")
                .body(Body::from_stream(futures::stream::iter(chunks)))
                .unwrap();
            let refused = read_form(request, rules, &UploadMemory::new(room)).await;
            refused.unwrap_err();
            assert_eq!(read.load(Ordering::Relaxed), whole, "{names:?} {room}");
        }
    }
}
