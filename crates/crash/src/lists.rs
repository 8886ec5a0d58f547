//! What the service lists for one client, compared with what it should: the log says what was carried out, this says what the
//! state has of it.

use std::sync::Mutex;

use sesemi_protocol::PrincipalId;
use sesemi_protocol::query::{
    GrantView, ModelView, PersonView, QueryAnswer, Question, RequestKeyView,
};

use crate::book::Book;
use crate::client::Client;
use crate::error::CrashError;
use crate::round::lock;

/// Compares all lists of one client.
///
/// # Errors
/// [`CrashError`] if the service does not answer.
pub async fn compare(client: &mut Client, book: &Mutex<Book>) -> Result<(), CrashError> {
    let me = client.id;
    let expected = lock(book).expected.clone();
    let models = models(client, me).await?;
    let grants = grants(client, |after| Question::Grants {
        owner: me,
        name: None,
        after,
    })
    .await?;
    let people = people(client, me).await?;
    let keys = request_keys(client).await?;
    let mut book = lock(book);
    book.compare_list(&expected.models_of(me), &models)?;
    book.compare_list(&expected.grants_of(me), &grants)?;
    book.compare_list(&expected.people_of(me), &people)?;
    book.compare_list(&expected.keys_of(me), &keys)
}

fn unexpected<T>(answer: &QueryAnswer) -> Result<T, CrashError> {
    Err(CrashError::Answer(format!("{answer:?}")))
}

async fn models(client: &mut Client, owner: PrincipalId) -> Result<Vec<ModelView>, CrashError> {
    let mut all: Vec<ModelView> = Vec::new();
    loop {
        let after = all.last().map(|model| model.name.clone());
        match client.ask(Question::Models { owner, after }).await? {
            QueryAnswer::Models(page) if page.is_empty() => return Ok(all),
            QueryAnswer::Models(page) => all.extend(page),
            other => return unexpected(&other),
        }
    }
}

async fn grants(
    client: &mut Client,
    question: impl Fn(u64) -> Question,
) -> Result<Vec<GrantView>, CrashError> {
    let mut all: Vec<GrantView> = Vec::new();
    loop {
        let after = all.last().map_or(0, |grant| grant.id);
        match client.ask(question(after)).await? {
            QueryAnswer::Grants(page) if page.is_empty() => return Ok(all),
            QueryAnswer::Grants(page) => all.extend(page),
            other => return unexpected(&other),
        }
    }
}

async fn people(client: &mut Client, owner: PrincipalId) -> Result<Vec<PersonView>, CrashError> {
    let mut all = Vec::new();
    loop {
        let after = all.len() as u64;
        match client.ask(Question::People { owner, after }).await? {
            QueryAnswer::People(page) if page.is_empty() => return Ok(all),
            QueryAnswer::People(page) => all.extend(page),
            other => return unexpected(&other),
        }
    }
}

async fn request_keys(client: &mut Client) -> Result<Vec<RequestKeyView>, CrashError> {
    let mut all = Vec::new();
    loop {
        let after = all.len() as u64;
        match client.ask(Question::RequestKeys { after }).await? {
            QueryAnswer::RequestKeys(page) if page.is_empty() => return Ok(all),
            QueryAnswer::RequestKeys(page) => all.extend(page),
            other => return unexpected(&other),
        }
    }
}
