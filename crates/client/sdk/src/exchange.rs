//! Requests by reference: the sealed request goes into an object store and a small message names it, and the sealed response
//! comes back the same way. For what is too large for a gateway or a platform between (OpenWhisk takes 1 MiB, for example).
//!
//! The store is not trusted, as the gateway is not: what lies there is sealed, and a response is one only if it opens.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use sesemi_protocol::entropy::random;
use sesemi_protocol::reference::{ObjectName, Reference, ReferenceError, Stored};
use sesemi_protocol::{ModelTarget, RequestId, SystemEntropy};
use tokio::time::timeout;

use crate::error::Error;
use crate::gateway::Gateway;

/// Longest wait for the store.
const STORE: Duration = Duration::from_secs(60);

/// An object store that SeMIRT's instances share with their users (`--exchange`), and when to use it.
#[derive(Debug, Clone)]
pub struct Exchange {
    store: Arc<dyn ObjectStore>,
    above: usize,
    response: usize,
}

impl Exchange {
    /// An exchange for sealed requests of more than `above` bytes.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, above: usize) -> Self {
        Self {
            store,
            above,
            response: 0,
        }
    }

    /// The same, for responses that are expected to have about `bytes` bytes: if that is above the limit, then small requests go
    /// by reference too.
    #[must_use]
    pub fn expecting(self, bytes: usize) -> Self {
        Self {
            response: bytes,
            ..self
        }
    }

    /// Whether a sealed request of so many bytes, or its response, is too large to be sent.
    pub(crate) fn is_for(&self, sealed: usize) -> bool {
        sealed.max(self.response) > self.above
    }

    /// Sends a sealed request by reference, gives back the sealed response, and removes both objects. If this is dropped on the
    /// way, they stay: whoever runs the store should end old objects.
    pub(crate) async fn send(
        &self,
        gateway: &Gateway,
        address: &str,
        model: &ModelTarget,
        sealed: Vec<u8>,
        limit: Duration,
        entropy: &SystemEntropy,
    ) -> Result<Vec<u8>, Error> {
        let name = RequestId(random(entropy)?);
        let reference = Reference {
            request: ObjectName::new(&format!("{name}.request"))?,
            response: ObjectName::new(&format!("{name}.response"))?,
        };
        let message = reference.encode().map_err(ReferenceError::from)?.to_vec();
        let path = path(&reference.request);
        let put = self
            .store
            .put_opts(&path, PutPayload::from(sealed), PutMode::Create.into());
        in_time(put).await?;
        let answer = match gateway.send(address, model, message, limit).await {
            Ok(answer) => self.fetch(&reference, &answer).await,
            Err(error) => Err(error),
        };
        for name in [&reference.request, &reference.response] {
            // What is not there need not be removed, and what cannot be removed harms nobody: it is sealed.
            let _ = in_time(self.store.delete(&self::path(name))).await;
        }
        answer
    }

    async fn fetch(&self, reference: &Reference, answer: &[u8]) -> Result<Vec<u8>, Error> {
        let stored = Stored::decode(answer)?;
        if stored.response != reference.response {
            return Err(Error::OtherObject(stored.response));
        }
        // No more than was announced, whatever lies there by now.
        let path = path(&stored.response);
        let bytes = in_time(self.store.get_range(&path, 0..stored.length)).await?;
        Ok(Vec::from(bytes))
    }
}

fn path(name: &ObjectName) -> ObjectPath {
    ObjectPath::from(name.as_str())
}

async fn in_time<T>(
    stored: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, Error> {
    let stored = timeout(STORE, stored).await;
    Ok(stored.map_err(|_| Error::StoreTimedOut(STORE.as_secs()))??)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use object_store::local::LocalFileSystem;
    use sesemi_protocol::{ModelId, ModelName, PrincipalId, VersionSelector};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Takes one request, and answers its body with what `answer` makes of it.
    async fn host(
        status: u16,
        answer: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static,
    ) -> (Gateway, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.split("\r\n").next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            tcp.read_exact(&mut body).await.unwrap();
            let body = answer(body);
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let whole = [head.as_bytes(), &body].concat();
            tcp.write_all(&whole).await.unwrap();
        });
        (Gateway::default(), address)
    }

    /// What SeMIRT does, but for the sealing: the response is the request backwards.
    fn serve(folder: &Path, message: &[u8]) -> Vec<u8> {
        let reference = Reference::decode(message).unwrap();
        let mut content = std::fs::read(folder.join(reference.request.as_str())).unwrap();
        content.reverse();
        std::fs::write(folder.join(reference.response.as_str()), &content).unwrap();
        let stored = Stored {
            response: reference.response,
            length: content.len() as u64,
        };
        stored.encode().unwrap().to_vec()
    }

    fn exchange(above: usize) -> (TempDir, Exchange) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        (folder, Exchange::new(Arc::new(store), above))
    }

    async fn send(
        exchange: &Exchange,
        (gateway, address): (Gateway, String),
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let model = ModelTarget {
            model: ModelId {
                owner: PrincipalId([1; 32]),
                name: ModelName::new("m").unwrap(),
            },
            version: "1".parse::<VersionSelector>().unwrap(),
        };
        let (limit, entropy) = (Duration::from_secs(30), SystemEntropy::new());
        let sent = exchange.send(&gateway, &address, &model, sealed.to_vec(), limit, &entropy);
        sent.await
    }

    fn objects(folder: &TempDir) -> usize {
        std::fs::read_dir(folder.path()).unwrap().count()
    }

    #[tokio::test]
    async fn a_request_goes_and_its_response_comes_by_reference_and_neither_stays() {
        let (folder, exchange) = exchange(0);
        let place = folder.path().to_owned();
        let host = host(200, move |message| serve(&place, &message)).await;
        let answer = send(&exchange, host, b"sealed").await.unwrap();
        assert_eq!(answer, b"delaes");
        assert_eq!(objects(&folder), 0);
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_leaves_nothing() {
        let (folder, exchange) = exchange(0);
        let host = host(409, |_| {
            br#"{"error":"no","code":"already_exists"}"#.to_vec()
        })
        .await;
        let error = send(&exchange, host, b"sealed").await.unwrap_err();
        assert_eq!(error.refusal(), Some("already_exists"));
        assert_eq!(objects(&folder), 0);
    }

    #[tokio::test]
    async fn a_host_that_names_another_object_or_length_gets_nothing_read() {
        let stored = |response: &str, length| Stored {
            response: ObjectName::new(response).unwrap(),
            length,
        };
        let (folder, exchange) = exchange(0);
        std::fs::write(folder.path().join("other"), b"other").unwrap();
        let other = stored("other", 5).encode().unwrap().to_vec();
        let answer = send(&exchange, host(200, |_| other).await, b"sealed").await;
        assert!(matches!(answer, Err(Error::OtherObject(_))), "{answer:?}");
        let long = stored("other", 1 << 40).encode().unwrap().to_vec();
        let answer = send(&exchange, host(200, |_| long).await, b"sealed").await;
        assert!(matches!(answer, Err(Error::Reference(_))), "{answer:?}");
        let answer = send(&exchange, host(200, |_| b"\xd0".to_vec()).await, b"sealed").await;
        assert!(matches!(answer, Err(Error::Reference(_))), "{answer:?}");
        assert_eq!(objects(&folder), 1);
    }

    #[test]
    fn only_what_is_too_large_goes_by_reference() {
        let (_folder, exchange) = exchange(1000);
        assert!(!exchange.is_for(1000));
        assert!(exchange.is_for(1001));
        assert!(!exchange.clone().expecting(1000).is_for(1));
        assert!(exchange.expecting(1001).is_for(1));
    }
}
