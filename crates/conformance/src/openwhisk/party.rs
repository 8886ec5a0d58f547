//! An owner with a model and a user of it, and what the user's sealed request is carried by: whatever stands where a gateway would.

use std::future::Future;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use sesemi::{
    Client, CodeIdentityDigest, Grant, Identity, Isolation, KeyScope, ModelRef, ObjectStore,
    Tensor, in_one_line,
};
use sesemi_cli::demo::{data, plaintext, trust};
use sesemi_cli::stack::Facts;
use tokio::net::TcpListener;

use super::message;
use crate::Outcome;

/// Largest difference from the plain model's probabilities that counts as equal.
const TOLERANCE: f32 = 1e-6;

/// A user with a model that it may use.
pub(super) struct Party {
    user: Client,
    model: ModelRef,
    rows: Vec<data::Row>,
    expected: Vec<Vec<f32>>,
}

impl Party {
    pub(super) async fn join(facts: &Facts) -> Outcome<Self> {
        let (mut owner, mut user) = (client(facts).await?, client(facts).await?);
        let store = LocalFileSystem::new_with_prefix(&facts.store).map_err(in_one_line)?;
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let (manifest, forms) = (data::manifest(), data::forms());
        let isolation = Isolation::default();
        let model = owner
            .push_model(&store, "breast-cancer", 1, &manifest, &forms, isolation)
            .await
            .map_err(in_one_line)?;
        let semirt: CodeIdentityDigest = facts.semirt_code.parse().map_err(in_one_line)?;
        let grant = Grant::of(&model, user.id(), semirt);
        owner.grant(grant).await.map_err(in_one_line)?;
        let scope = KeyScope::Model(model.model.clone());
        let deposited = user.deposit_key(&scope, [semirt], isolation.into());
        deposited.await.map_err(in_one_line)?;
        let mut rows = data::parse_csv(data::HELD_OUT).map_err(in_one_line)?;
        rows.truncate(4);
        let expected = plaintext::probabilities(&rows).map_err(in_one_line)?;
        Ok(Self {
            user,
            model,
            rows,
            expected,
        })
    }

    /// Has `carry` take a sealed request to SeMIRT and bring the sealed answer, opens that, and compares it with the plain model's
    /// answer. `number` says which row of the data it is about.
    pub(super) async fn infer<F>(
        &self,
        number: usize,
        carry: impl FnOnce(Vec<u8>) -> F,
    ) -> Outcome<String>
    where
        F: Future<Output = Outcome<Vec<u8>>>,
    {
        let row = self.rows.get(number % self.rows.len());
        let expected = self.expected.get(number % self.rows.len());
        let (row, expected) = row.zip(expected).ok_or("there are no rows")?;
        let input = Tensor::fp32("features", &[1, data::FEATURES as u64], &row.features);
        let inputs = [input.map_err(in_one_line)?];
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(in_one_line)?;
        let gateway = format!("http://{}", listener.local_addr().map_err(in_one_line)?);
        let carried = async {
            let (mut stream, _) = listener.accept().await.map_err(in_one_line)?;
            let sealed = message::read(&mut stream).await?.body;
            let answer = carry(sealed).await?;
            message::answer(&mut stream, 200, "application/cose", &answer).await
        };
        let infer = self.user.infer(&gateway, self.model.clone(), &inputs);
        let mut infer = std::pin::pin!(infer);
        // If it was not carried, nobody answers the user, who need not wait.
        let inference = tokio::select! {
            inference = &mut infer => inference,
            carried = carried => {
                carried?;
                infer.await
            }
        };
        let inference = inference.map_err(in_one_line)?;
        let output = inference.outputs.first().and_then(Tensor::to_fp32);
        let got = output.ok_or("the answer has no probabilities")?;
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
        if got.len() == expected.len() && got.iter().zip(expected).all(close) {
            return Ok(format!(
                "sealed, served {}, opened, and equal to the plain model's answer",
                inference.report.path.as_str()
            ));
        }
        Err(format!("{got:?} is not the plain model's {expected:?}"))
    }
}

async fn client(facts: &Facts) -> Outcome<Client> {
    let identity = Identity::generate().map_err(in_one_line)?;
    let address = facts.keyservice.parse().map_err(in_one_line)?;
    let trust = trust(facts).map_err(in_one_line)?;
    let joined = Client::connect(identity, address, trust).await;
    joined.map_err(in_one_line)
}
