//! The reading of request bodies within the request timeout.

use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use muster_base::settings::Settings;
use muster_jobs::FileName;
use muster_recognize::decode::DecodeLimits;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::api::problem::ApiError;
use crate::forms::json::read_json;
use crate::forms::memory::UploadMemory;
use crate::forms::upload::{Form, FormRules, Photo, read_form, stored_photo};
use muster_api::problem::Code;

/// A form with photographs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it documents what `Uploads` reads")]
pub struct PhotosForm {
    /// Photographs, at least one: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL.
    #[schema(value_type = Vec<String>, min_items = 1)]
    image: (),
}

/// The reader of request bodies, with the settings' limits. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    memory: UploadMemory,
    /// Each photograph's limits.
    pub limits: DecodeLimits,
    timeout: Duration,
    /// Most photographs in a form.
    pub max_images: usize,
}

impl Uploads {
    /// A reader with the limits of these settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            memory: UploadMemory::new(settings.web.max_upload_memory_bytes),
            limits: settings.photographs.limits(),
            timeout: settings.web.request_timeout,
            max_images: settings.photographs.max_in_request,
        }
    }

    /// The rules of a form with photographs to recognise, at least one.
    pub fn rules<'a>(&'a self, fields: &'a [&'a str], max_photos: usize) -> FormRules<'a> {
        FormRules {
            photo_fields: fields,
            min_photos: 1,
            max_photos,
            text_fields: &[],
            limits: &self.limits,
            apart: false,
        }
    }

    /// Reads a form within the request timeout.
    ///
    /// # Errors
    /// As [`read_form`], and 408 after the timeout.
    pub async fn form(&self, request: Request, rules: FormRules<'_>) -> Result<Form, ApiError> {
        self.in_time(read_form(request, rules, &self.memory)).await
    }

    /// Reads a JSON body within the request timeout.
    ///
    /// # Errors
    /// As [`read_json`], and 408 after the timeout.
    pub async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T, ApiError> {
        self.in_time(read_json(request)).await
    }

    /// A photograph that is stored already, taken into memory again.
    ///
    /// # Errors
    /// 429 where the memory for uploads is used up.
    pub fn stored(&self, file: FileName, bytes: Bytes) -> Result<Photo, ApiError> {
        stored_photo(file, bytes, &self.memory)
    }

    async fn in_time<T>(
        &self,
        reading: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::time::timeout(self.timeout, reading)
            .await
            .map_err(|_| {
                ApiError::new(
                    Code::RequestTimeout,
                    "the upload took too long: send less at a time, or over a faster line",
                )
            })?
    }
}
