//! An executable of fixed shapes and one that takes every shape, both of `y = 2 x + 1`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use shapeyard_core::backend::{
    Artifact, BackendError, Domain, Executable, Fingerprint, InUse, Optimisation, ReadyShapes,
    SessionOptions,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::cover::{cover, nearest};
use shapeyard_core::{
    BackendId, BindingMode, DataType, Dim, Outputs, Request, Route, RunError, RunReport, Session,
    Signature, StageTimes, Tensor, TensorSpec, TensorView, Tier,
};

pub(crate) const PROGRAMS: BackendId = BackendId::new("programs");
pub(crate) const DYNAMIC: BackendId = BackendId::new("dynamic");

/// `x` and `y` are `[batch, width]`; `scale` is `[1]` and has no rows.
pub(crate) fn signature() -> Arc<Signature> {
    Arc::new(with_outputs(&["y"]))
}

/// The same with `sum`, `[width]`, which adds the rows up.
fn signature_with_sum() -> Arc<Signature> {
    Arc::new(with_outputs(&["y", "sum"]))
}

fn with_outputs(names: &[&str]) -> Signature {
    let spec = |name: &str, shape: Vec<Dim>| TensorSpec {
        name: name.to_owned(),
        dtype: DataType::F32,
        shape: Some(shape),
        index_limit: None,
    };
    let outputs =
        BTreeMap::from([("y", vec![Dim::Unnamed, Dim::Unnamed]), ("sum", vec![Dim::Unnamed])]);
    let mut signature = Signature {
        inputs: vec![
            spec("x", vec![Dim::Unnamed, Dim::Unnamed]),
            spec("scale", vec![Dim::Fixed(1)]),
        ],
        outputs: names.iter().map(|name| spec(name, outputs[*name].clone())).collect(),
        symbols: Vec::new(),
    };
    let axis = |tensor: &str, axis, symbol: &str| shapeyard_core::AxisSymbol {
        tensor: tensor.to_owned(),
        axis,
        symbol: symbol.to_owned(),
    };
    let mut axes = vec![
        axis("x", 0, "batch"),
        axis("x", 1, "width"),
        axis("y", 0, "batch"),
        axis("y", 1, "width"),
    ];
    if names.contains(&"sum") {
        axes.push(axis("sum", 0, "width"));
    }
    signature.declare(&axes).unwrap();
    signature
}

pub(crate) fn shape(batch: usize, width: usize) -> Bucket {
    Bucket::from_iter([("batch", batch), ("width", width)])
}

/// Programs of fixed shapes; a clone has the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    signature: Arc<Signature>,
    ready: Arc<RwLock<ReadyShapes>>,
    failure: Arc<RwLock<Option<Failure>>>,
    n_runs: Arc<AtomicUsize>,
}

/// How every run ends.
pub(crate) type Failure = fn() -> RunError;

impl Programs {
    pub(crate) fn of(buckets: Vec<Bucket>, can_split: bool) -> Self {
        let ready =
            ReadyShapes { buckets, rows: Some("batch".to_owned()), can_split, rigid: Vec::new() };
        Self {
            signature: signature(),
            ready: Arc::new(RwLock::new(ready)),
            failure: Arc::default(),
            n_runs: Arc::default(),
        }
    }

    /// The same, of a model whose rows are added up too.
    pub(crate) fn with_sum(self) -> Self {
        Self { signature: signature_with_sum(), ..self }
    }

    /// As a device does that needs the memory for something else.
    pub(crate) fn evict_all(&self) {
        self.ready.write().unwrap().buckets.clear();
    }

    /// How many runs were asked for so far.
    pub(crate) fn n_runs(&self) -> usize {
        self.n_runs.load(Ordering::Relaxed)
    }

    /// Runs end so from now on.
    pub(crate) fn fail(&self, failure: Option<Failure>) {
        *self.failure.write().unwrap() = failure;
    }
}

#[derive(Debug)]
struct ProgramSession(Programs);

impl Executable for Programs {
    fn backend(&self) -> BackendId {
        PROGRAMS
    }
    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }
    fn domain(&self) -> Domain {
        Domain::Buckets(self.ready.read().unwrap().clone())
    }
    fn session(&self, _: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(ProgramSession(self.clone())))
    }
    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.ready.write().unwrap().buckets.push(artifact.bucket.clone());
        Ok(())
    }
}

impl Session for ProgramSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        self.0.n_runs.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = *self.0.failure.read().unwrap() {
            return Err(failure());
        }
        let wanted = self.0.signature.bucket(request.extents());
        let ready = self.0.ready.read().unwrap();
        let Some(pieces) = cover(&wanted, &ready.buckets, &ready.freedom()) else {
            let nearest = nearest(&wanted, &ready.buckets, 3);
            return Err(RunError::NotReady { wanted, nearest });
        };
        let padded = |at: usize| ready.buckets[at].get("batch").unwrap();
        let n_padded_rows = pieces.iter().map(|it| padded(it.bucket) - it.n_rows).sum();
        let exact = ready.buckets[pieces[0].bucket] == wanted;
        let route = match pieces.len() {
            1 if exact => Route::Exact,
            1 => Route::Padded,
            _ => Route::Split,
        };
        let report = compute(PROGRAMS, &self.0.signature, request, outputs);
        let binding = BindingMode::Staged;
        Ok(RunReport { route, n_pieces: pieces.len(), n_padded_rows, binding, ..report })
    }
}

/// Takes every shape.
#[derive(Debug)]
struct Dynamic {
    signature: Arc<Signature>,
    /// So many runs fail before the others.
    n_failures: Arc<AtomicUsize>,
}

pub(crate) fn dynamic() -> Arc<dyn Executable> {
    dynamic_that_fails(0)
}

/// Whose first runs fail, of a full device.
pub(crate) fn dynamic_that_fails(n_failures: usize) -> Arc<dyn Executable> {
    Arc::new(Dynamic { signature: signature(), n_failures: Arc::new(n_failures.into()) })
}

/// The same, of a model whose rows are added up too.
pub(crate) fn dynamic_with_sum() -> Arc<dyn Executable> {
    Arc::new(Dynamic { signature: signature_with_sum(), n_failures: Arc::default() })
}

#[derive(Debug)]
struct DynamicSession(Arc<Signature>, Arc<AtomicUsize>);

impl Executable for Dynamic {
    fn backend(&self) -> BackendId {
        DYNAMIC
    }
    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }
    fn domain(&self) -> Domain {
        Domain::Any
    }
    fn session(&self, _: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(DynamicSession(Arc::clone(&self.signature), Arc::clone(&self.n_failures))))
    }
    fn admit(&self, _: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: DYNAMIC, what: "take artifacts" })
    }
}

impl Session for DynamicSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(&self.0)?;
        let count = |n: usize| n.checked_sub(1);
        if self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_ok() {
            return Err(RunError::DeviceMemory { backend: DYNAMIC, reason: "full".to_owned() });
        }
        Ok(compute(DYNAMIC, &self.0, request, outputs))
    }
}

fn compute(
    backend: BackendId,
    signature: &Signature,
    request: &Request<'_>,
    outputs: &mut Outputs,
) -> RunReport {
    let [x, scale] = request.inputs() else { panic!("two inputs are bound") };
    let scale = scale.as_slice::<f32>().unwrap()[0];
    let [slot, rest @ ..] = outputs.slots(signature.outputs.len()) else {
        panic!("there is an output")
    };
    slot.reset(DataType::F32, x.shape()).unwrap();
    let values = x.as_slice::<f32>().unwrap().iter().map(|x| scale * x + 1.0);
    slot.as_mut_slice::<f32>().unwrap().iter_mut().zip(values).for_each(|(y, value)| *y = value);
    if let [sum] = rest {
        let width = x.shape()[1];
        sum.reset(DataType::F32, &[width]).unwrap();
        let sums = sum.as_mut_slice::<f32>().unwrap();
        sums.fill(0.0);
        let y = slot.as_slice::<f32>().unwrap();
        y.iter().enumerate().for_each(|(at, y)| sums[at % width] += y);
    }
    RunReport::exact_on_host(backend, Tier::Cached, StageTimes::default())
}

/// Inputs whose every element is its own.
pub(crate) fn inputs(batch: usize, width: usize) -> [Tensor; 2] {
    let x: Vec<f32> = (0..batch * width).map(|at| at as f32).collect();
    let x = Tensor::from_slice(&[batch, width], &x).unwrap();
    [x, Tensor::from_slice(&[1], &[2.0_f32]).unwrap()]
}

/// Runs a request and checks every element of the answer.
pub(crate) fn run(session: &mut dyn Session, batch: usize, width: usize) -> RunReport {
    let inputs = inputs(batch, width);
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    run_bound(session, &signature(), (batch, width), &views).0
}

/// The error of a request that fails.
pub(crate) fn error(session: &mut dyn Session, batch: usize, width: usize) -> RunError {
    let (inputs, signature) = (inputs(batch, width), signature());
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let request = Request::bind(&signature, &views).unwrap();
    session.run(&request, &mut Outputs::new()).unwrap_err()
}

/// As [`run`], for a model whose rows are added up too; gives that sum as well.
pub(crate) fn run_with_sum(
    session: &mut dyn Session,
    batch: usize,
    width: usize,
) -> (RunReport, Vec<f32>) {
    let inputs = inputs(batch, width);
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let (report, outputs) = run_bound(session, &signature_with_sum(), (batch, width), &views);
    (report, outputs.tensors()[1].as_slice::<f32>().unwrap().to_vec())
}

fn run_bound(
    session: &mut dyn Session,
    signature: &Signature,
    (batch, width): (usize, usize),
    views: &[TensorView<'_>],
) -> (RunReport, Outputs) {
    let request = Request::bind(signature, views).unwrap();
    let mut outputs = Outputs::new();
    let report = session.run(&request, &mut outputs).unwrap();
    let y = &outputs.tensors()[0];
    assert_eq!(y.shape(), [batch, width]);
    let wanted = (0..batch * width).map(|at| 2.0 * at as f32 + 1.0);
    assert!(y.as_slice::<f32>().unwrap().iter().copied().eq(wanted), "{report:?}");
    (report, outputs)
}

pub(crate) fn session(executable: &dyn Executable) -> Box<dyn Session> {
    executable.session(&SessionOptions::threads(1)).unwrap()
}

/// What a compile for a shape would give.
pub(crate) fn artifact(bucket: &Bucket) -> Artifact {
    Artifact {
        backend: PROGRAMS,
        model: Digest::of(b"model"),
        bucket: bucket.clone(),
        optimisation: Optimisation::Full,
        fingerprint: Fingerprint(String::new()),
        payload: "program".into(),
        n_bytes: 0,
        checksum: Digest::of(b""),
        notes: BTreeMap::new(),
        in_use: InUse::default(),
    }
}
