//! `sesemi group` and `sesemi delegate`: whom an owner's namespace has a place for.

use sesemi::{GroupName, PersonView, PrincipalId, Role};

use super::actor::object;
use crate::args::{DelegateCommand, GroupCommand, RoleArg, Who};
use crate::error::{CliError, During as _};
use crate::table::table;
use crate::times::shown;

/// `sesemi group`.
///
/// # Errors
/// [`CliError`].
pub async fn group(command: GroupCommand) -> Result<(), CliError> {
    match command {
        GroupCommand::Add {
            group,
            user,
            owner,
            who,
        } => member(true, &group, &user, owner.as_deref(), who).await,
        GroupCommand::Remove {
            group,
            user,
            owner,
            who,
        } => member(false, &group, &user, owner.as_deref(), who).await,
        GroupCommand::List { owner, who } => members(owner.as_deref(), who).await,
    }
}

async fn member(
    add: bool,
    group: &str,
    user: &str,
    owner: Option<&str>,
    who: Who,
) -> Result<(), CliError> {
    let group: GroupName = group.parse().during("read the group's name")?;
    let user: PrincipalId = user.parse().during("read the user's id")?;
    let mut actor = who.connect().await?;
    let owner = actor.principal(owner)?;
    let value = object([
        ("group", group.to_string().into()),
        ("user", user.to_string().into()),
    ]);
    let people = if add {
        let client = &mut actor.client;
        let done = client.add_member(owner, group.clone(), user).await;
        done.during("put the user into the group")?;
        format!("{user} is in the group {owner}/{group}")
    } else {
        let client = &mut actor.client;
        let done = client.remove_member(owner, group.clone(), user).await;
        done.during("take the user out of the group")?;
        format!("{user} is no longer in the group {owner}/{group}")
    };
    actor.done(&people, value)
}

async fn members(owner: Option<&str>, who: Who) -> Result<(), CliError> {
    let actor = who.connect().await?;
    let owner = actor.principal(owner)?;
    let people = actor.client.people(owner).await.during("list the groups")?;
    let rows: Vec<[String; 2]> = people
        .iter()
        .filter_map(|person| match person {
            PersonView::Member { group, user } => Some([group.to_string(), user.to_string()]),
            PersonView::Delegate { .. } => None,
        })
        .collect();
    let value: Vec<serde_json::Value> = rows
        .iter()
        .map(|[group, user]| serde_json::json!({"group": group, "user": user}))
        .collect();
    actor.show(&value.into(), &table(["GROUP", "USER"], &rows))
}

/// `sesemi delegate`.
///
/// # Errors
/// [`CliError`].
pub async fn delegate(command: DelegateCommand) -> Result<(), CliError> {
    match command {
        DelegateCommand::Add {
            to,
            role,
            expires,
            who,
        } => add(&to, role.into(), expires, who).await,
        DelegateCommand::End { to, role, who } => end(&to, role.into(), who).await,
        DelegateCommand::List { who } => delegates(who).await,
    }
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Grantor => Self::Grantor,
            RoleArg::Auditor => Self::Auditor,
        }
    }
}

async fn add(to: &str, role: Role, expires: Option<u64>, who: Who) -> Result<(), CliError> {
    let to: PrincipalId = to.parse().during("read the id")?;
    let mut actor = who.connect().await?;
    actor
        .client
        .delegate(to, role, expires)
        .await
        .during("delegate")?;
    let until = expires.map_or(String::new(), |at| format!(" until {}", shown(at)));
    let value = object([
        ("to", to.to_string().into()),
        ("role", role.as_str().into()),
    ]);
    actor.done(&format!("{to} is {}{until}", role.as_str()), value)
}

async fn end(to: &str, role: Role, who: Who) -> Result<(), CliError> {
    let to: PrincipalId = to.parse().during("read the id")?;
    let mut actor = who.connect().await?;
    actor
        .client
        .end_delegation(to, role)
        .await
        .during("end the delegation")?;
    let value = object([
        ("to", to.to_string().into()),
        ("role", role.as_str().into()),
    ]);
    actor.done(&format!("{to} is no longer {}", role.as_str()), value)
}

async fn delegates(who: Who) -> Result<(), CliError> {
    let actor = who.connect().await?;
    let people = actor
        .client
        .people(actor.client.id())
        .await
        .during("list the delegations")?;
    let rows: Vec<[String; 3]> = people
        .iter()
        .filter_map(|person| match person {
            PersonView::Delegate { to, role, expires } => Some([
                to.to_string(),
                role.as_str().to_owned(),
                expires.map_or("-".into(), shown),
            ]),
            PersonView::Member { .. } => None,
        })
        .collect();
    let value: Vec<serde_json::Value> = rows
        .iter()
        .map(|[to, role, until]| serde_json::json!({"to": to, "role": role, "until": until}))
        .collect();
    actor.show(&value.into(), &table(["WHO", "ROLE", "UNTIL"], &rows))
}
