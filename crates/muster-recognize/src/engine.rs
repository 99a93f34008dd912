//! The inference runtime: one OpenVINO core and models compiled for one fixed input shape each.
//!
//! The OpenVINO library is loaded from one given path, once a process, never searched for. A
//! [`Session`] keeps one inference request whose input tensor is written in place, so that a run
//! allocates and copies nothing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use muster_jobs::EmbeddingError;
use openvino::{
    CompiledModel, Core, DeviceType, ElementType, InferRequest, InferenceError, Model,
    PartialShape, RwPropertyKey, SetupError, Tensor,
};

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
        /// What was expected of it, and what it is instead.
        expected: String,
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

    /// Compiles a model with one `f32` input, of that name, for the input shape `[n, c, h, w]`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unsuitable`] when it has other inputs, [`EngineError::Model`] when it refuses
    /// the shape.
    pub fn compile(
        &mut self,
        source: &mut SourceModel,
        input: &str,
        shape: [i64; 4],
    ) -> Result<Session, EngineError> {
        let inputs = source.inputs()?;
        if inputs != [input] {
            return Err(source.unsuitable(format!(
                "one input, `{input}`, was expected, and it has {}",
                inputs.join(", ")
            )));
        }
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
        let input = request.get_tensor(input).map_err(failed)?;
        let session = Session {
            request,
            input,
            _compiled: compiled,
        };
        if session.input.get_element_type().map_err(failed)? != ElementType::F32 {
            return Err(EngineError::Unsuitable {
                path: source.path.clone(),
                expected: "an input of 32-bit floats was expected".to_owned(),
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
    pub fn unsuitable(&self, expected: impl Into<String>) -> EngineError {
        EngineError::Unsuitable {
            path: self.path.clone(),
            expected: expected.into(),
        }
    }

    /// Returns the names of the inputs.
    fn inputs(&self) -> Result<Vec<String>, EngineError> {
        let count = self.model.get_inputs_len().map_err(|e| self.failed(e))?;
        (0..count)
            .map(|at| self.model.get_input_by_index(at)?.get_name())
            .collect::<Result<_, _>>()
            .map_err(|error| self.failed(error))
    }

    /// Returns the shape that the first input has in the file; `None` for what is open there.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`].
    pub fn input_shape(&self) -> Result<Vec<Option<i64>>, EngineError> {
        let port = self.model.get_input_by_index(0);
        let shape = port
            .and_then(|port| port.get_partial_shape())
            .map_err(|error| self.failed(error))?;
        let dimension = |at: &openvino::Dimension| (!at.is_dynamic()).then(|| at.get_min());
        Ok(shape.get_dimensions().iter().map(dimension).collect())
    }

    /// Returns how many outputs there are.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`].
    pub fn outputs(&self) -> Result<usize, EngineError> {
        self.model
            .get_outputs_len()
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, source: InferenceError) -> EngineError {
        EngineError::Model {
            path: self.path.clone(),
            source,
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

    /// Returns the output tensor that bears `name`, perhaps among others. It holds what the last run
    /// left there, also of runs to come.
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

    /// Returns the shape.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn shape(&self) -> Result<Vec<i64>, EngineError> {
        let shape = self.0.get_shape().map_err(EngineError::Run)?;
        Ok(shape.get_dimensions().to_vec())
    }

    /// Whether the values are 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`].
    pub fn is_f32(&self) -> Result<bool, EngineError> {
        let kind = self.0.get_element_type().map_err(EngineError::Run)?;
        Ok(kind == ElementType::F32)
    }
}
