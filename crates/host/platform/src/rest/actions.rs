//! Actions: made, replaced, read, listed and deleted. What replaces an action is deployed beside it before it takes the name, so
//! that there is no moment without an action, and what the old one has begun ends there.

use std::sync::Arc;

use hyper::StatusCode;

use super::Shared;
use super::answer::json;
use super::entity::{Action, EntityName, Put};
use super::failure::Failure;
use super::query::Query;
use crate::http::Answer;
use crate::{ActionName, ActionSpec, Entity, Image, Platform as _, PlatformError};

impl Shared {
    /// The action of this name.
    pub(super) fn action(&self, name: &EntityName) -> Option<Arc<Action>> {
        self.lock().get(name).cloned()
    }

    pub(super) fn get_action(&self, name: &EntityName) -> Result<Answer, Failure> {
        let action = self.action(name).ok_or(Failure::NoSuchAction)?;
        Ok(self.told(&action))
    }

    pub(super) fn list_actions(&self, query: Query<'_>) -> Result<Answer, Failure> {
        let page = query.page()?;
        let mut actions: Vec<_> = self.lock().values().cloned().collect();
        actions.sort_by_key(|action| std::cmp::Reverse(action.updated));
        let namespace = &self.config.namespace;
        let told = actions.iter().map(|action| action.summary(namespace));
        Ok(json(StatusCode::OK, &page.of(told)))
    }

    pub(super) async fn put_action(
        &self,
        name: &EntityName,
        overwrite: bool,
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let put = Put::parse(body)?;
        let old = self.action(name);
        if old.is_some() && !overwrite {
            return Err(Failure::AlreadyExists);
        }
        let action = Arc::new(put.onto(name, old.as_deref(), self.new_name()?, &self.config)?);
        self.platform.deploy(self.spec(&action)?).await?;
        if let Err(failure) = self.replace(old.as_ref(), action.clone()) {
            self.undeploy(&action).await;
            return Err(failure);
        }
        if let Some(old) = old {
            self.undeploy(&old).await;
        }
        Ok(self.told(&action))
    }

    pub(super) async fn delete_action(&self, name: &EntityName) -> Result<Answer, Failure> {
        let gone = self.lock().remove(name).ok_or(Failure::NoSuchAction)?;
        self.undeploy(&gone).await;
        Ok(self.told(&gone))
    }

    /// Lets `new` take its name, if `old` still has it.
    fn replace(&self, old: Option<&Arc<Action>>, new: Arc<Action>) -> Result<(), Failure> {
        let mut actions = self.lock();
        let is_as_it_was = match (actions.get(&new.name), old) {
            (None, None) => true,
            (Some(there), Some(old)) => Arc::ptr_eq(there, old),
            _ => false,
        };
        if !is_as_it_was {
            return Err(Failure::Changed);
        }
        let most = self.config.max_actions;
        if old.is_none() && actions.len() >= most {
            return Err(Failure::TooManyActions(most));
        }
        actions.insert(new.name.clone(), new);
        Ok(())
    }

    /// What is asked of it ends; it takes nothing new.
    pub(super) async fn undeploy(&self, action: &Action) {
        if let Err(error) = self.platform.delete(&action.deployed).await {
            tracing::warn!(%error, "an action could not be deleted");
        }
    }

    /// A name for the embedded platform that nobody else has: its own names have fewer characters than ours.
    fn new_name(&self) -> Result<ActionName, PlatformError> {
        let name = format!("ow-{}", self.platform.next_activation());
        ActionName::new(&name).map_err(|error| PlatformError::Setup {
            problem: error.to_string(),
        })
    }

    fn spec(&self, action: &Action) -> Result<ActionSpec, Failure> {
        let image = self.config.images.get(&action.image);
        let image = image.ok_or_else(|| {
            Failure::BadRequest("the action's image is registered no more".to_owned())
        })?;
        Ok(ActionSpec {
            name: action.deployed.clone(),
            image: Image::Program(image.clone()),
            memory_mib: action.limits.memory,
            concurrency: action.limits.concurrency,
            timeout: action.timeout(),
            entity: Some(Entity {
                namespace: self.config.namespace.clone(),
                name: action.name.as_str().to_owned(),
                version: action.version(),
            }),
        })
    }

    fn told(&self, action: &Action) -> Answer {
        json(StatusCode::OK, &action.view(&self.config.namespace))
    }
}
