//! Filling in the record.

use std::collections::BTreeMap;

use shapeyard_core::backend::{BackendId, Environment, Recipe};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Dim, Signature, TensorSpec};

use super::{AxisKey, KEY_VERSION, Key, ValueKey};

/// Makes a [`Key`]; what is not set stays explicitly unset.
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyBuilder(Key);

impl KeyBuilder {
    pub(super) fn new(model: Digest, backend: BackendId, backend_version: String) -> Self {
        Self(Key {
            version: KEY_VERSION,
            model,
            bucket: Bucket::default(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            precision: None,
            calibration: None,
            options: BTreeMap::new(),
            backend,
            backend_version,
            compiler: None,
            library: None,
            driver: None,
            architecture: None,
            environment: None,
            extra: BTreeMap::new(),
        })
    }

    /// The shape that is compiled for; empty where one artifact serves every shape.
    pub fn bucket(mut self, bucket: Bucket) -> Self {
        self.0.bucket = bucket;
        self
    }

    /// The declared inputs and outputs: names, types, ranks and axes. Their order does not matter, and an
    /// input that the compiler folds away still counts.
    pub fn signature(mut self, signature: &Signature) -> Self {
        let axis = |dim: &Dim| match dim {
            Dim::Fixed(extent) => AxisKey::Fixed(*extent as u64),
            Dim::Symbol(id) => match signature.symbols.get(id.index()) {
                Some(name) => AxisKey::Symbol(name.clone()),
                None => AxisKey::Unnamed,
            },
            Dim::Unnamed => AxisKey::Unnamed,
        };
        let value = |spec: &TensorSpec| {
            let axes = spec.shape.as_ref().map(|dims| dims.iter().map(axis).collect());
            (spec.name.clone(), ValueKey { dtype: spec.dtype, axes })
        };
        self.0.inputs = signature.inputs.iter().map(value).collect();
        self.0.outputs = signature.outputs.iter().map(value).collect();
        self
    }

    /// What the recipe says besides the backend and its version.
    pub(super) fn recipe(mut self, recipe: &Recipe) -> Self {
        self.0.precision.clone_from(&recipe.precision);
        self.0.calibration = recipe.calibration;
        self.0.options.clone_from(&recipe.options);
        let Some(machine) = &recipe.machine else { return self };
        self.0.compiler = Some(machine.compiler.clone());
        self.0.library = machine.library;
        self.0.driver.clone_from(&machine.driver);
        self.0.architecture.clone_from(&machine.architecture);
        self.0.environment = Some(machine.environment.clone());
        self
    }

    /// The number formats that the compiler may use, such as `fp16` or `int8+fp16`.
    pub fn precision(mut self, precision: impl Into<String>) -> Self {
        self.0.precision = Some(precision.into());
        self
    }

    /// The content of the calibration that quantisation follows.
    pub fn calibration(mut self, content: Digest) -> Self {
        self.0.calibration = Some(content);
        self
    }

    /// One option of the compile, such as `exhaustive_tune` = `true`.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.options.insert(name.into(), value.into());
        self
    }

    /// The compiler with its version, as it names itself.
    pub fn compiler(mut self, compiler: impl Into<String>) -> Self {
        self.0.compiler = Some(compiler.into());
        self
    }

    /// The content of the compiler's library: two builds may carry one version.
    pub fn library(mut self, content: Digest) -> Self {
        self.0.library = Some(content);
        self
    }

    /// The driver with its version.
    pub fn driver(mut self, driver: impl Into<String>) -> Self {
        self.0.driver = Some(driver.into());
        self
    }

    /// The device's whole architecture, features included, such as `gfx90a:sramecc+:xnack-`.
    pub fn architecture(mut self, architecture: impl Into<String>) -> Self {
        self.0.architecture = Some(architecture.into());
        self
    }

    /// The environment as it was when the library was loaded: libraries read theirs once.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.0.environment = Some(environment);
        self
    }

    /// Whatever else changes the artifact of this backend.
    pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.extra.insert(name.into(), value.into());
        self
    }

    /// The key.
    #[must_use]
    pub fn build(self) -> Key {
        self.0
    }
}
