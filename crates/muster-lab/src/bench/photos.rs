//! The photographs that are sent.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;

use crate::photos::{Variation, open, photos_in, square_jpeg};
use muster_api::progress;
use muster_base::settings::Settings;

/// Photographs of one size, distinct as far as requests need them.
///
/// # Errors
/// When there are none, or one can not be read.
pub async fn prepare(
    images: Option<&Path>,
    requests: usize,
    size: u32,
    settings: &Settings,
) -> anyhow::Result<Vec<Bytes>> {
    let (files, varied) = match images {
        Some(folder) => (photos_in(folder)?, false),
        None => {
            let samples = settings.models.installation()?.samples().people;
            (
                samples.into_iter().flat_map(|(_, files)| files).collect(),
                true,
            )
        }
    };
    anyhow::ensure!(
        !files.is_empty(),
        "there are no photographs to send: name a --images DIR"
    );
    // A varied sample is new for each of the original's 1,000 images; more requests begin again.
    let distinct = if varied {
        requests.min(1000)
    } else {
        files.len().min(requests)
    };
    let bar = progress::bar(distinct, "preparing photographs");
    let files = Arc::new(files);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<_> = (0..threads)
        .map(|part| {
            let (files, bar) = (Arc::clone(&files), bar.clone());
            tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<(usize, Bytes)>> {
                let mut made = Vec::new();
                let mut opened: Option<(usize, image::RgbImage)> = None;
                // By file, so that each is decoded once a thread.
                for file in (0..files.len()).skip(part).step_by(threads) {
                    for n in (file..distinct).step_by(files.len()) {
                        if opened.as_ref().is_none_or(|(which, _)| *which != file) {
                            opened = Some((file, open(&files[file])?));
                        }
                        let Some((_, photo)) = &opened else { continue };
                        let variation = if varied {
                            Variation::nth(n as u64)
                        } else {
                            Variation::default()
                        };
                        made.push((n, square_jpeg(photo, size, variation)?));
                        bar.inc(1);
                    }
                }
                Ok(made)
            })
        })
        .collect();
    let mut photos = Vec::new();
    for part in parts {
        photos.extend(part.await.context("prepare the photographs")??);
    }
    bar.finish_and_clear();
    photos.sort_by_key(|(n, _)| *n);
    Ok(photos.into_iter().map(|(_, photo)| photo).collect())
}
