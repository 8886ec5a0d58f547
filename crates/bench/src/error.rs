//! Why nothing was measured.

use sesemi_attest::attester::AttesterError;
use sesemi_attest::channel::ChannelError;
use sesemi_attest::code_identity::TeeKind;
use sesemi_attest::evidence::EvidenceError;
use sesemi_attest::{AppraisalError, Rejected, VerifyError};
use sesemi_keyservice::limits::RateError;
use sesemi_keyservice::log::LogError;
use sesemi_keyservice::start::StartError;
use sesemi_keyservice::unlock::UnlockError;
use sesemi_protocol::EntropyError;
use sesemi_protocol::cbor::CborError;
use sesemi_protocol::identity::IdentityError;
use sesemi_protocol::receipt::SignedError;
use sesemi_simtee::SimteeError;

/// Why nothing was measured. A measurement has no failures of its own: whatever fails here would fail in the product.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// One of the things to be measured failed.
    #[error("cannot measure {what}")]
    Metric {
        what: &'static str,
        source: Box<BenchError>,
    },
    #[error("the operating system refused")]
    Io(#[from] std::io::Error),
    #[error("the simulated machine failed")]
    Machine(#[from] SimteeError),
    #[error("the enclave gave no evidence")]
    Attester(#[from] AttesterError),
    #[error("a certificate or evidence cannot be read")]
    Evidence(#[from] EvidenceError),
    #[error("evidence does not verify")]
    Verify(#[from] VerifyError),
    #[error("evidence was not accepted")]
    Rejected(#[from] Rejected),
    #[error("the appraisal policy is unusable")]
    Policy(#[from] AppraisalError),
    #[error("there is no attested channel")]
    Channel(#[from] ChannelError),
    #[error("TLS failed")]
    Tls(#[from] rustls::Error),
    #[error("no certificate could be made")]
    Certificate(#[from] rcgen::Error),
    #[error("KeyService did not start")]
    KeyService(#[from] StartError),
    #[error("the state key cannot be had")]
    Unlock(#[from] UnlockError),
    #[error("the log cannot be written")]
    Log(#[from] LogError),
    #[error(transparent)]
    Rate(#[from] RateError),
    #[error("a command cannot be signed")]
    Signed(#[from] SignedError),
    #[error("a name is refused")]
    Name(#[from] sesemi_protocol::id::IdError),
    #[error("the baseline's database failed")]
    Baseline(#[from] redb::Error),
    #[error("no identity could be made")]
    Identity(#[from] IdentityError),
    #[error("there is no randomness")]
    Entropy(#[from] EntropyError),
    #[error("a code identity cannot be encoded")]
    Cbor(#[from] CborError),
    #[error("the sample of {} is not what it should be", .0.as_str())]
    Sample(TeeKind),
    #[error("SeMIRT or KeyService did not do what a client asked for")]
    Client(#[from] sesemi::Error),
    #[error(transparent)]
    Compile(#[from] sesemi_compile::CompileError),
    #[error(transparent)]
    Model(#[from] sesemi_onnx::OnnxError),
    #[error("the engine alone failed")]
    Engine(#[from] sesemi_semirt::engine::EngineError),
    #[error(transparent)]
    Library(#[from] sesemi_onnxruntime::LibraryError),
    #[error(transparent)]
    Engines(#[from] sesemi_engines::InstallError),
    #[error("a package cannot be sealed or opened")]
    Package(#[from] sesemi_protocol::package::PackageError),
    #[error("the folder of models cannot be used")]
    Store(#[from] object_store::Error),
    /// The other side did something that the measurement is not about.
    #[error("{0}")]
    Unexpected(&'static str),
    #[error("a task of this process ended early")]
    Task(#[from] tokio::task::JoinError),
}
