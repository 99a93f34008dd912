//! The inference runtime: one OpenVINO core and models compiled for one fixed input shape each.
//!
//! The OpenVINO library is loaded from one given path, once a process, never searched for. A
//! [`Session`] keeps one inference request whose input tensor is written in place, so that a run
//! allocates and copies nothing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, InferenceError, Model,
    PartialShape, RwPropertyKey, SetupError, Tensor,
};

use crate::embed::EmbeddingError;

/// The library this process has loaded; OpenVINO is never unloaded.
static LOADED_LIBRARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The runtime library is missing, broken or too old: install the models again.
    #[error("cannot load the inference runtime {}: {message}", path.display())]
    Library {
        /// The library that was asked for.
        path: PathBuf,
        /// What the dynamic loader said.
        message: String,
    },
    /// This process already runs on another copy of the runtime: a caller's mistake.
    #[error(
        "this process already runs the inference runtime {}, it cannot load {} as well",
        loaded.display(), asked.display()
    )]
    OtherLibraryLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library that was asked for.
        asked: PathBuf,
    },
    /// The runtime loaded and then refused to start.
    #[error("cannot start the inference runtime")]
    Start(#[source] SetupError),
    /// A model file cannot be read or compiled: install the models again.
    #[error("cannot load the model {}", path.display())]
    Model {
        /// The model's file.
        path: PathBuf,
        /// What the runtime said.
        #[source]
        source: InferenceError,
    },
    /// A model loads but is not the kind of model its place needs.
    #[error("the model {} does not fit: {expected}", path.display())]
    Unsuitable {
        /// The model's file.
        path: PathBuf,
        /// What was expected of it.
        expected: &'static str,
    },
    /// A run failed: the process should be replaced.
    #[error("cannot run a model")]
    Run(#[source] InferenceError),
    /// A run gave values no face can have: the model file is not what it says.
    #[error("the embedding model gave no embedding")]
    Meaningless(#[source] EmbeddingError),
}

/// One OpenVINO core, set up for one request at a time with the least latency.
pub struct Engine {
    core: Core,
}

impl Engine {
    /// Loads the runtime and starts a core with `threads` inference threads.
    ///
    /// With a `cache_dir`, compiled models are kept there and a later load takes less than half
    /// the time. The directory is created when missing; deleting it is always safe.
    ///
    /// # Errors
    ///
    /// [`EngineError::Library`], [`EngineError::OtherLibraryLoaded`] or [`EngineError::Start`].
    pub fn start(
        library: &Path,
        cache_dir: Option<&Path>,
        threads: usize,
    ) -> Result<Self, EngineError> {
        load_library(library)?;
        let mut core = Core::new().map_err(EngineError::Start)?;
        let threads = threads.max(1).to_string();
        let mut properties = vec![
            (RwPropertyKey::HintPerformanceMode, "LATENCY"),
            (RwPropertyKey::NumStreams, "1"),
            (RwPropertyKey::InferenceNumThreads, threads.as_str()),
            // Workers share a machine: a pinned thread would sit on a core another one is using.
            (RwPropertyKey::HintEnableCpuPinning, "NO"),
        ];
        let cache_dir = cache_dir.map(|path| path.to_string_lossy().into_owned());
        if let Some(path) = &cache_dir {
            properties.push((RwPropertyKey::CacheDir, path));
        }
        core.set_properties(&DeviceType::CPU, properties)
            .map_err(|error| EngineError::Start(SetupError::Inference(error)))?;
        Ok(Self { core })
    }

    /// Reads a model file without compiling it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`] when the file is missing or is not a model.
    pub fn read(&mut self, path: &Path) -> Result<SourceModel, EngineError> {
        let model = self
            .core
            .read_model_from_file(&path.to_string_lossy(), "")
            .map_err(|source| EngineError::Model {
                path: path.to_owned(),
                source,
            })?;
        Ok(SourceModel {
            model,
            path: path.to_owned(),
        })
    }

    /// Compiles a model with one `f32` input for the input shape `[n, c, h, w]`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`] when the model refuses the shape.
    pub fn compile(
        &mut self,
        source: &mut SourceModel,
        shape: [i64; 4],
    ) -> Result<Session, EngineError> {
        let failed = |error| EngineError::Model {
            path: source.path.clone(),
            source: error,
        };
        let partial = PartialShape::new_static(4, &shape).map_err(failed)?;
        source
            .model
            .reshape_single_input(&partial)
            .map_err(failed)?;
        let mut compiled = self
            .core
            .compile_model(&source.model, DeviceType::CPU)
            .map_err(failed)?;
        let request = compiled.create_infer_request().map_err(failed)?;
        let input = request.get_input_tensor().map_err(failed)?;
        let session = Session {
            request,
            input,
            _compiled: compiled,
        };
        if session.input.get_element_type().map_err(failed)? != ElementType::F32 {
            return Err(EngineError::Unsuitable {
                path: source.path.clone(),
                expected: "one input of 32-bit floats",
            });
        }
        Ok(session)
    }
}

fn load_library(library: &Path) -> Result<(), EngineError> {
    let failed = |message| EngineError::Library {
        path: library.to_owned(),
        message,
    };
    let asked = library
        .canonicalize()
        .map_err(|error| failed(error.to_string()))?;
    let mut loaded = LOADED_LIBRARY
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match &*loaded {
        Some(path) if *path == asked => Ok(()),
        Some(path) => Err(EngineError::OtherLibraryLoaded {
            loaded: path.clone(),
            asked,
        }),
        None => {
            // By the name given: the loader finds the sibling libraries beside it either way.
            openvino_sys::library::load_from(library).map_err(failed)?;
            *loaded = Some(asked);
            Ok(())
        }
    }
}

/// A model as read from its file, ready to be compiled for a shape.
pub struct SourceModel {
    model: Model,
    path: PathBuf,
}

impl SourceModel {
    /// Says that the model is not what its place needs.
    #[must_use]
    pub fn unsuitable(&self, expected: &'static str) -> EngineError {
        EngineError::Unsuitable {
            path: self.path.clone(),
            expected,
        }
    }
}

/// A model compiled for one input shape, with its one request.
pub struct Session {
    // Fields drop in order: the request and its tensor go before the model they belong to.
    request: InferRequest,
    input: Tensor,
    _compiled: CompiledModel,
}

impl Session {
    /// Lends the input tensor, in row-major `[n, c, h, w]` order; what a run left there stays.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn input_mut(&mut self) -> Result<&mut [f32], EngineError> {
        self.input.get_data_mut().map_err(EngineError::Run)
    }

    /// Runs the model on what the input tensor holds.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn run(&mut self) -> Result<(), EngineError> {
        self.request.infer().map_err(EngineError::Run)
    }

    /// Returns the output tensor that bears `name`, perhaps among others, as of the last run.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`], also when there is no such output.
    pub fn output(&self, name: &str) -> Result<Output, EngineError> {
        self.request
            .get_tensor(name)
            .map(Output)
            .map_err(EngineError::Run)
    }

    /// Returns the model's one output tensor, as of the last run.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`], also when there are several outputs.
    pub fn only_output(&self) -> Result<Output, EngineError> {
        self.request
            .get_output_tensor()
            .map(Output)
            .map_err(EngineError::Run)
    }
}

/// One output of a run.
pub struct Output(Tensor);

impl Output {
    /// Lends the values, in row-major order.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn values(&self) -> Result<&[f32], EngineError> {
        self.0.get_data().map_err(EngineError::Run)
    }
}
