//! HEIC and AVIF by libheif, loaded when the first such picture comes; nothing is linked against it.
//!
//! Its code is C++: a fault in it ends the process, and the queue hands the photograph to another worker, until it was
//! received too often.

#![expect(
    unsafe_code,
    reason = "functions of a C library are called; each that is loaded has the type of libheif's heif.h, where no type has \
              changed since 1.4"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;

use super::error::ImageError;
use super::format::{Format, Header};
use super::photo::Photo;
use super::raster::{over_white, premultiplied_over_white, rgba_to_rgb};

#[cfg(target_os = "macos")]
const FILES: &[&str] = &["libheif.1.dylib", "/opt/homebrew/lib/libheif.1.dylib"];
#[cfg(not(target_os = "macos"))]
const FILES: &[&str] = &["libheif.so.1"];

const COLORSPACE_RGB: c_int = 1;
const CHROMA_RGB: c_int = 10;
const CHROMA_RGBA: c_int = 11;
const CHANNEL_INTERLEAVED: c_int = 10;

/// A side, in pixels, of what a picture may be put together from, though it shows less of it.
const LARGEST_TILE: u32 = 1024;

const UNSUPPORTED_FILETYPE: c_int = 3;
const UNSUPPORTED_FEATURE: c_int = 4;
const MEMORY: c_int = 6;

/// `struct heif_error`.
#[repr(C)]
struct Status {
    code: c_int,
    subcode: c_int,
    message: *const c_char,
}

/// What `struct heif_decoding_options` begins with.
#[repr(C)]
struct DecodingOptions {
    version: u8,
    ignore_transformations: u8,
    progress: [Option<unsafe extern "C" fn()>; 3],
    progress_user_data: *mut c_void,
    /// From version 2 on.
    convert_hdr_to_8bit: u8,
    /// From version 3 on.
    strict_decoding: u8,
}

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of libheif, by their names without `heif_`.
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            is_premultiplied_alpha: Option<unsafe extern "C" fn(*const c_void) -> c_int>,
            // They are its code.
            _library: Library,
        }

        impl Functions {
            fn of(library: Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of libheif's header.
                unsafe {
                    Ok(Self {
                        $($name: *library.get(concat!("heif_", stringify!($name)).as_bytes())?,)*
                        is_premultiplied_alpha: library
                            .get(b"heif_image_handle_is_premultiplied_alpha")
                            .ok()
                            .map(|found| *found),
                        _library: library,
                    })
                }
            }
        }
    };
}

functions! {
    get_version: fn() -> *const c_char;
    have_decoder_for_format: fn(c_int) -> c_int;
    context_alloc: fn() -> *mut c_void;
    context_free: fn(*mut c_void);
    context_set_maximum_image_size_limit: fn(*mut c_void, c_int);
    context_read_from_memory_without_copy: fn(*mut c_void, *const c_void, usize, *const c_void) -> Status;
    context_get_primary_image_handle: fn(*mut c_void, *mut *mut c_void) -> Status;
    image_handle_get_width: fn(*const c_void) -> c_int;
    image_handle_get_height: fn(*const c_void) -> c_int;
    image_handle_has_alpha_channel: fn(*const c_void) -> c_int;
    image_handle_release: fn(*mut c_void);
    decoding_options_alloc: fn() -> *mut DecodingOptions;
    decoding_options_free: fn(*mut DecodingOptions);
    decode_image: fn(*const c_void, *mut *mut c_void, c_int, c_int, *const DecodingOptions) -> Status;
    image_get_width: fn(*const c_void, c_int) -> c_int;
    image_get_height: fn(*const c_void, c_int) -> c_int;
    image_get_plane_readonly: fn(*const c_void, c_int, *mut c_int) -> *const u8;
    image_release: fn(*mut c_void);
}

/// What a libheif can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libheif {
    /// Its version.
    pub version: String,
    /// Whether it decodes HEIC.
    pub heic: bool,
    /// Whether it decodes AVIF.
    pub avif: bool,
}

/// Tells which libheif is on this machine; `None` where there is none.
pub fn libheif() -> Option<Libheif> {
    let functions = functions().ok()?;
    // SAFETY: the version is a string that is never freed.
    let version = unsafe { CStr::from_ptr((functions.get_version)()) };
    Some(Libheif {
        version: version.to_string_lossy().into_owned(),
        heic: functions.decodes(Format::Heic),
        avif: functions.decodes(Format::Avif),
    })
}

/// The library of this process, once it was found.
fn functions() -> Result<&'static Functions, libloading::Error> {
    static LOADED: OnceLock<Functions> = OnceLock::new();
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded);
    }
    let found = load(FILES)?;
    Ok(LOADED.get_or_init(|| found))
}

fn load(files: &[&str]) -> Result<Functions, libloading::Error> {
    // SAFETY: what libheif and the codecs that it brings do when they are loaded is to fill tables of their own.
    let open = |file: &&str| unsafe { Library::new(*file) };
    let mut found = files.iter().map(open);
    let library = found
        .by_ref()
        .find(Result::is_ok)
        .unwrap_or_else(|| open(&files[0]))?;
    Functions::of(library)
}

impl Functions {
    fn decodes(&self, format: Format) -> bool {
        let compression = match format {
            Format::Avif => 4,
            _ => 1,
        };
        // SAFETY: it looks into a table.
        unsafe { (self.have_decoder_for_format)(compression) != 0 }
    }
}

/// Something of libheif's that is given back.
struct Held<T> {
    object: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Held<T> {
    fn new(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!object.is_null()).then_some(Self { object, free })
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: it came from the function that this one belongs to, and is freed once.
        unsafe { (self.free)(self.object) }
    }
}

/// Decodes the primary picture to upright RGB: libheif turns and cuts it as the file says.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Photo, ImageError> {
    let format = header.format;
    let heif = functions().map_err(|_| ImageError::without_libheif(format))?;
    if !heif.decodes(format) {
        return Err(ImageError::without_libheif(format));
    }
    let out_of_memory = || ImageError::unreadable(format, "there is no memory for it");
    let checked = |status: Status| match status.code {
        0 => Ok(()),
        UNSUPPORTED_FILETYPE | UNSUPPORTED_FEATURE => Err(ImageError::rare_heif(format)),
        MEMORY => Err(ImageError::unreadable(
            format,
            "its data is larger than its header says",
        )),
        _ => Err(ImageError::unreadable(format, "its data makes no sense")),
    };
    let below = header.width.max(header.height).max(LARGEST_TILE) + 1;
    let below = c_int::try_from(below).unwrap_or(c_int::MAX);
    // SAFETY: every object is used while it is held, and what libheif writes into is as long as it is told. The bytes
    // outlive the context.
    unsafe {
        let context =
            Held::new((heif.context_alloc)(), heif.context_free).ok_or_else(out_of_memory)?;
        (heif.context_set_maximum_image_size_limit)(context.object, below);
        checked((heif.context_read_from_memory_without_copy)(
            context.object,
            bytes.as_ptr().cast(),
            bytes.len(),
            ptr::null(),
        ))?;
        let mut handle = ptr::null_mut();
        checked((heif.context_get_primary_image_handle)(
            context.object,
            &raw mut handle,
        ))?;
        let handle = Held::new(handle, heif.image_handle_release).ok_or_else(out_of_memory)?;

        let pixels = |width: c_int, height: c_int| {
            let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
            let stored = u64::from(header.width) * u64::from(header.height);
            let count = u64::from(width) * u64::from(height);
            (1..=stored).contains(&count).then_some((width, height))
        };
        let other_size = || ImageError::unreadable(format, "it states two sizes");
        let (width, height) = pixels(
            (heif.image_handle_get_width)(handle.object),
            (heif.image_handle_get_height)(handle.object),
        )
        .ok_or_else(other_size)?;
        let alpha = (heif.image_handle_has_alpha_channel)(handle.object) != 0;
        let premultiplied = heif
            .is_premultiplied_alpha
            .is_some_and(|ask| ask(handle.object) != 0);

        let options = Held::new((heif.decoding_options_alloc)(), heif.decoding_options_free)
            .ok_or_else(out_of_memory)?;
        if (*options.object).version >= 2 {
            (*options.object).convert_hdr_to_8bit = 1;
        }
        if (*options.object).version >= 3 {
            (*options.object).strict_decoding = 1;
        }
        let mut image = ptr::null_mut();
        let (chroma, channels) = if alpha {
            (CHROMA_RGBA, 4)
        } else {
            (CHROMA_RGB, 3)
        };
        checked((heif.decode_image)(
            handle.object,
            &raw mut image,
            COLORSPACE_RGB,
            chroma,
            options.object,
        ))?;
        let image = Held::new(image, heif.image_release).ok_or_else(out_of_memory)?;
        let size = pixels(
            (heif.image_get_width)(image.object, CHANNEL_INTERLEAVED),
            (heif.image_get_height)(image.object, CHANNEL_INTERLEAVED),
        );
        let mut stride = 0;
        let plane =
            (heif.image_get_plane_readonly)(image.object, CHANNEL_INTERLEAVED, &raw mut stride);
        let row = width as usize * channels;
        let stride = usize::try_from(stride).unwrap_or(0);
        if size != Some((width, height)) || plane.is_null() || stride < row {
            return Err(other_size());
        }
        let mut samples = Vec::with_capacity(row * height as usize);
        for line in 0..height as usize {
            samples.extend_from_slice(std::slice::from_raw_parts(plane.add(line * stride), row));
        }
        let rgb = match (alpha, premultiplied) {
            (false, _) => samples,
            (true, false) => rgba_to_rgb(&samples, over_white),
            (true, true) => rgba_to_rgb(&samples, premultiplied_over_white),
        };
        Ok(Photo { width, height, rgb })
    }
}

#[cfg(test)]
mod tests {
    use muster_jobs::FailureCode;

    use super::*;

    #[test]
    fn a_machine_without_libheif_says_what_to_install() {
        assert!(load(&["libheif-that-nobody-has.so.1"]).is_err());
        for (format, name) in [(Format::Heic, "HEIC"), (Format::Avif, "AVIF")] {
            let refused = ImageError::without_libheif(format);
            let said = refused.to_string();
            assert_eq!(refused.code(), FailureCode::ImageUnsupported);
            assert!(
                said.contains(name) && said.contains("apt-get install libheif1"),
                "{said}"
            );
            assert!(said.contains("JPEG"), "{said}");
        }
    }
}
