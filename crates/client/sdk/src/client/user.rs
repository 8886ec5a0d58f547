//! What model users do: deposit the keys that their requests are sealed with, rotate and end them, and infer.
//!
//! A request key is for one model or for all, and has an epoch. All follow from the user's identity, so nothing has to be kept:
//! which of them are in use is what KeyService lists.

use std::time::Duration;

use sesemi_protocol::command::{Action, KeyScope};
use sesemi_protocol::entropy::random;
use sesemi_protocol::envelope::{Report, RequestContent, Route, seal_request};
use sesemi_protocol::query::{QueryAnswer, Question, RequestKeyView};
use sesemi_protocol::receipt::Receipt;
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{
    CodeIdentityDigest, Isolation, ModelId, ModelTarget, RefusalCode, RequestId,
};

use super::owner::sorted;
use super::{Client, now};
use crate::error::Error;
use crate::exchange::Exchange;
use crate::isolation::IsolationChange;

/// Longest wait for an inference; a cold start is within it.
const INFERENCE: Duration = Duration::from_secs(60);
/// The epoch of a user's first request key of a scope.
const FIRST_EPOCH: u32 = 1;

/// The result of an inference.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// The model's outputs.
    pub outputs: Vec<Tensor>,
    /// Which version served, which way the request took, and where the time went, as SeMIRT says inside the sealed response.
    pub report: Report,
}

/// How requests go out.
struct Way<'w, T> {
    gateway: &'w str,
    exchange: Option<&'w Exchange>,
    tamper: &'w T,
}

impl Client {
    /// Deposits this user's request key of a scope, for enclaves that run one of `codes` and no other, and gives its epoch.
    /// Doing it again, with the code of a new build for example, sets the approved code of the newest epoch anew, and how far
    /// its requests are kept apart as far as `isolation` says so.
    ///
    /// # Errors
    /// [`Error::Refused`]; with [`RefusalCode::AlreadyExists`] if every key of this scope has ended, which
    /// [`Client::put_request_key`] with a higher epoch mends.
    pub async fn deposit_key(
        &mut self,
        scope: &KeyScope,
        codes: impl IntoIterator<Item = CodeIdentityDigest>,
        isolation: IsolationChange,
    ) -> Result<u32, Error> {
        let listed = self.request_keys().await?;
        let newest = newest(&listed, scope);
        let epoch = newest.map_or(FIRST_EPOCH, |key| key.epoch);
        let isolation = isolation.over(known_isolation(&listed, scope, epoch));
        let codes = codes.into_iter().collect();
        self.put_request_key(scope, epoch, codes, isolation, None)
            .await?;
        Ok(epoch)
    }

    /// Like [`Client::deposit_key`], for the key of a certain epoch: the newest one's, or a higher one after all have ended.
    /// What `isolation` leaves unsaid is as it is for this epoch, or else for the newest that has not ended, of this scope or for all
    /// models. After all have ended, say it again: nobody else remembers it.
    ///
    /// # Errors
    /// [`Error::Refused`]; with [`RefusalCode::AlreadyExists`] if this key has ended, or there is a newer one.
    pub async fn deposit_key_as(
        &mut self,
        scope: &KeyScope,
        epoch: u32,
        codes: Vec<CodeIdentityDigest>,
        isolation: IsolationChange,
    ) -> Result<(), Error> {
        let listed = self.request_keys().await?;
        let isolation = isolation.over(known_isolation(&listed, scope, epoch));
        self.put_request_key(scope, epoch, codes, isolation, None)
            .await
            .map(drop)
    }

    /// Replaces the request key of a scope by the next epoch's, and gives that. Requests that are sealed with earlier ones are
    /// accepted until `earlier_end`, in seconds since 1970. Without any `codes` the approved code stays as it is,
    /// and so does of the isolation what `isolation` leaves unsaid.
    ///
    /// # Errors
    /// [`Error::NoKey`] if there is no key to replace; [`Error::Refused`].
    pub async fn rotate_key(
        &mut self,
        scope: &KeyScope,
        codes: Vec<CodeIdentityDigest>,
        isolation: IsolationChange,
        earlier_end: u64,
    ) -> Result<u32, Error> {
        let listed = self.request_keys().await?;
        let newest = newest(&listed, scope).ok_or(Error::NoKey)?;
        let epoch = newest.epoch.checked_add(1).ok_or(Error::NoKey)?;
        let codes = if codes.is_empty() {
            newest.codes.clone()
        } else {
            codes
        };
        let isolation = isolation.over(newest.isolation);
        self.put_request_key(scope, epoch, codes, isolation, Some(earlier_end))
            .await?;
        Ok(epoch)
    }

    /// Deposits the request key of one epoch: what [`Client::deposit_key`] and [`Client::rotate_key`] do once they know which.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn put_request_key(
        &mut self,
        scope: &KeyScope,
        epoch: u32,
        codes: Vec<CodeIdentityDigest>,
        isolation: Isolation,
        earlier_end: Option<u64>,
    ) -> Result<Receipt, Error> {
        let key = self.identity.request_key(scope, epoch)?;
        let action = Action::PutRequestKey {
            scope: scope.clone(),
            epoch,
            key: key.digest(),
            codes: sorted(codes),
            isolation,
            earlier_end,
        };
        self.forget_keys();
        self.submit(action, Some(key)).await
    }

    /// Ends a request key at a time in seconds since 1970, or at once if that has passed. It never comes back.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn end_key(
        &mut self,
        scope: KeyScope,
        epoch: u32,
        at: u64,
    ) -> Result<Receipt, Error> {
        self.forget_keys();
        self.submit(Action::EndRequestKey { scope, epoch, at }, None)
            .await
    }

    /// This user's request keys, without the keys.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn request_keys(&self) -> Result<Vec<RequestKeyView>, Error> {
        let question = |all: &[RequestKeyView]| Question::RequestKeys {
            after: all.len() as u64,
        };
        let items = |answer| match answer {
            QueryAnswer::RequestKeys(keys) => Some(keys),
            _ => None,
        };
        self.collect(question, items, |_, _| true).await
    }

    /// Sends inputs, sealed, to a model through the gateway at `http://HOST:PORT`, and opens the response. The model is a
    /// version by its number or by an alias; the result says which version served.
    ///
    /// # Errors
    /// [`Error::Refused`] with SeMIRT's own reason if it came sealed; [`Error::GatewayAnswer`] with whatever the host said
    /// otherwise; [`Error::Envelope`] if the response is not authentic.
    pub async fn infer(
        &self,
        gateway: &str,
        model: impl Into<ModelTarget>,
        inputs: &[Tensor],
    ) -> Result<Inference, Error> {
        self.infer_with(gateway, model, inputs, |_| {}).await
    }

    /// Like [`Client::infer`], but what is too large to be sent, request or response, goes through an object store that the
    /// instances share with their users.
    ///
    /// # Errors
    /// As [`Client::infer`], and [`Error::Store`], [`Error::StoreTimedOut`], [`Error::Reference`] or [`Error::OtherObject`].
    pub async fn infer_by_reference(
        &self,
        gateway: &str,
        model: impl Into<ModelTarget>,
        inputs: &[Tensor],
        exchange: &Exchange,
    ) -> Result<Inference, Error> {
        let untouched: fn(&mut Vec<u8>) = |_| {};
        let way = Way {
            gateway,
            exchange: Some(exchange),
            tamper: &untouched,
        };
        self.infer_on(&way, model.into(), inputs).await
    }

    /// Like [`Client::infer`], with a hand on the sealed bytes before they leave: for tests of what tampering does.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub async fn infer_with(
        &self,
        gateway: &str,
        model: impl Into<ModelTarget>,
        inputs: &[Tensor],
        tamper: impl Fn(&mut Vec<u8>),
    ) -> Result<Inference, Error> {
        let way = Way {
            gateway,
            exchange: None,
            tamper: &tamper,
        };
        self.infer_on(&way, model.into(), inputs).await
    }

    async fn infer_on(
        &self,
        way: &Way<'_, impl Fn(&mut Vec<u8>)>,
        model: ModelTarget,
        inputs: &[Tensor],
    ) -> Result<Inference, Error> {
        let key = self.key_for(&model.model).await?;
        let first = self.infer_under(way, &model, key, inputs).await;
        // Another client of this user may have rotated the key meanwhile.
        match first {
            Err(error) if is_about_the_key(&error) => {
                self.forget_keys();
                match self.key_for(&model.model).await {
                    Ok(other) if other != key => self.infer_under(way, &model, other, inputs).await,
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    async fn infer_under(
        &self,
        way: &Way<'_, impl Fn(&mut Vec<u8>)>,
        model: &ModelTarget,
        key: RequestKeyName,
        inputs: &[Tensor],
    ) -> Result<Inference, Error> {
        let route = Route {
            user: self.id(),
            model: model.clone(),
            request: RequestId(random(&self.entropy)?),
            key,
        };
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        let content = RequestContent {
            inputs: &views,
            outputs: &[],
            seen: self.seen,
        };
        let key = self
            .identity
            .request_key(&scope_of(key, &model.model), key.epoch)?;
        let mut sealed = seal_request(&key, route, &content, &self.entropy)?;
        (way.tamper)(&mut sealed.bytes);
        let (to, bytes) = (way.gateway, sealed.bytes);
        let response = match way.exchange.filter(|it| it.is_for(bytes.len())) {
            None => self.gateway.send(to, model, bytes, INFERENCE).await?,
            Some(exchange) => {
                let sent = exchange.send(&self.gateway, to, model, bytes, INFERENCE, &self.entropy);
                sent.await?
            }
        };
        let answer = sealed.pending.open(response)?;
        Ok(Inference {
            outputs: answer.outcome.map_err(Error::Refused)?,
            report: answer.report,
        })
    }

    /// The key to seal a request for a model with. Where there is none, the first is named all the same: then the refusal
    /// says what is missing.
    async fn key_for(&self, model: &ModelId) -> Result<RequestKeyName, Error> {
        let chosen = |client: &Self| {
            let keys = client.keys();
            keys.as_deref().map(|keys| choose(keys, model, now()))
        };
        if let Some(known) = chosen(self) {
            return Ok(known.unwrap_or(RequestKeyName::model(FIRST_EPOCH)));
        }
        self.refresh_keys().await?;
        let fresh = chosen(self).flatten();
        Ok(fresh.unwrap_or(RequestKeyName::model(FIRST_EPOCH)))
    }

    /// Asks for the list of request keys, and keeps those that follow from this identity.
    pub(super) async fn refresh_keys(&self) -> Result<(), Error> {
        let mut listed = self.request_keys().await?;
        listed.retain(|view| {
            let own = self.identity.request_key(&view.scope, view.epoch);
            own.is_ok_and(|key| key.digest() == view.key)
        });
        self.keep_keys(listed);
        Ok(())
    }

    pub(super) fn keep_keys(&self, keys: Vec<RequestKeyView>) {
        *self.keys() = Some(keys);
    }

    fn forget_keys(&self) {
        *self.keys() = None;
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Option<Vec<RequestKeyView>>> {
        // Whoever held it only assigned to it.
        self.keys
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn newest<'a>(keys: &'a [RequestKeyView], scope: &KeyScope) -> Option<&'a RequestKeyView> {
    let of_scope = keys.iter().filter(|key| key.scope == *scope);
    of_scope.max_by_key(|key| key.epoch)
}

/// What was asked for with the key of an epoch, or else with the newest of its scope, or with the one for all models, which stands in
/// for it; the default if there is none. Keys that have ended are not listed any more.
fn known_isolation(keys: &[RequestKeyView], scope: &KeyScope, epoch: u32) -> Isolation {
    let this = keys
        .iter()
        .find(|key| key.scope == *scope && key.epoch == epoch);
    let known = this
        .or_else(|| newest(keys, scope))
        .or_else(|| newest(keys, &KeyScope::AllModels));
    known.map(|key| key.isolation).unwrap_or_default()
}

/// The newest key of the model that is accepted at `now`, or else the newest for all models.
fn choose(keys: &[RequestKeyView], model: &ModelId, now: u64) -> Option<RequestKeyName> {
    let live: Vec<RequestKeyView> = keys
        .iter()
        .filter(|key| key.ends.is_none_or(|ends| ends > now))
        .cloned()
        .collect();
    let own = newest(&live, &KeyScope::Model(model.clone()));
    own.map(|key| RequestKeyName::model(key.epoch)).or_else(|| {
        newest(&live, &KeyScope::AllModels).map(|key| RequestKeyName::all_models(key.epoch))
    })
}

/// The scope that a key's name means where the model is known.
fn scope_of(key: RequestKeyName, model: &ModelId) -> KeyScope {
    if key == RequestKeyName::all_models(key.epoch) {
        KeyScope::AllModels
    } else {
        KeyScope::Model(model.clone())
    }
}

/// Whether another request key may mend this.
fn is_about_the_key(error: &Error) -> bool {
    [RefusalCode::NoRequestKey, RefusalCode::NotAuthentic]
        .iter()
        .any(|code| error.refusal() == Some(code.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sesemi_protocol::{ModelName, PrincipalId};

    fn model(name: &str) -> ModelId {
        ModelId {
            owner: PrincipalId([1; 32]),
            name: ModelName::new(name).unwrap(),
        }
    }

    fn key(scope: KeyScope, epoch: u32, ends: Option<u64>) -> RequestKeyView {
        RequestKeyView {
            scope,
            epoch,
            key: sesemi_protocol::Digest([0; 32]),
            codes: vec![CodeIdentityDigest([2; 32])],
            ends,
            isolation: Isolation::default(),
        }
    }

    #[test]
    fn a_key_keeps_its_isolation_or_takes_the_newest_ones_of_its_scope() {
        let of = |name| KeyScope::Model(model(name));
        let isolated = |scope, epoch, quantum_ms| RequestKeyView {
            isolation: Isolation {
                quantum_ms,
                ..Isolation::default()
            },
            ..key(scope, epoch, None)
        };
        let keys = [
            isolated(of("a"), 1, 10),
            isolated(of("a"), 2, 20),
            isolated(KeyScope::AllModels, 3, 30),
        ];
        let known = |scope, epoch| known_isolation(&keys, &scope, epoch).quantum_ms;
        assert_eq!(known(of("a"), 1), 10);
        assert_eq!(known(of("a"), 2), 20);
        assert_eq!(known(of("a"), 7), 20);
        assert_eq!(known(KeyScope::AllModels, 1), 30);
        assert_eq!(
            known(of("b"), 1),
            30,
            "the one for all models stood in for it"
        );
        assert_eq!(known_isolation(&[], &of("b"), 1), Isolation::default());
    }

    #[test]
    fn the_newest_live_key_of_the_model_comes_before_one_for_all_models() {
        let of = |name| KeyScope::Model(model(name));
        let keys = [
            key(KeyScope::AllModels, 7, None),
            key(of("a"), 1, Some(100)),
            key(of("a"), 2, None),
            key(of("a"), 3, Some(50)),
            key(of("b"), 1, Some(50)),
        ];
        let chosen = |name, now| choose(&keys, &model(name), now);
        assert_eq!(chosen("a", 49), Some(RequestKeyName::model(3)));
        assert_eq!(chosen("a", 50), Some(RequestKeyName::model(2)));
        assert_eq!(chosen("b", 49), Some(RequestKeyName::model(1)));
        assert_eq!(chosen("b", 50), Some(RequestKeyName::all_models(7)));
        assert_eq!(chosen("c", 0), Some(RequestKeyName::all_models(7)));
        assert_eq!(choose(&keys[4..], &model("a"), 0), None);
    }

    #[test]
    fn a_keys_name_leads_back_to_its_scope() {
        let scope = |name| scope_of(name, &model("a"));
        assert_eq!(scope(RequestKeyName::model(3)), KeyScope::Model(model("a")));
        assert_eq!(scope(RequestKeyName::all_models(3)), KeyScope::AllModels);
    }
}
