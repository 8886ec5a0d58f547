//! `sesemi group` and `sesemi delegate`: whom an owner's namespace has a place for.

use sesemi::{CodeIdentityDigest, Delegation, GroupName, PersonView, PrincipalId, Role};

use super::actor::{Actor, joined, object};
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
            code,
            expires,
            who,
        } => {
            granting_only(role, &code)?;
            add(&to, role, &code, expires, who).await
        }
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

/// An auditor grants nothing: whoever names code for one means something else.
fn granting_only(role: RoleArg, code: &[String]) -> Result<(), CliError> {
    if role == RoleArg::Auditor && !code.is_empty() {
        return Err(CliError::Input(
            "an auditor grants in no code; leave --code out, or give the role grantor".into(),
        ));
    }
    Ok(())
}

impl Actor {
    fn delegation(&self, role: RoleArg, code: &[String]) -> Result<Delegation, CliError> {
        Ok(match role {
            RoleArg::Grantor => Delegation::Grantor {
                codes: self.codes(code)?,
            },
            RoleArg::Auditor => Delegation::Auditor,
        })
    }
}

async fn add(
    to: &str,
    role: RoleArg,
    code: &[String],
    expires: Option<u64>,
    who: Who,
) -> Result<(), CliError> {
    let to: PrincipalId = to.parse().during("read the id")?;
    let mut actor = who.connect().await?;
    let delegation = actor.delegation(role, code)?;
    actor
        .client
        .delegate(to, delegation.clone(), expires)
        .await
        .during("delegate")?;
    let until = expires.map_or(String::new(), |at| format!(" until {}", shown(at)));
    let (role, codes) = (delegation.role().as_str(), delegation.codes());
    let value = object([
        ("to", to.to_string().into()),
        ("role", role.into()),
        ("codes", texts(codes).into()),
    ]);
    let code = match delegation {
        Delegation::Grantor { .. } => format!(" in code {}", joined(codes)),
        Delegation::Auditor => String::new(),
    };
    actor.done(&format!("{to} is {role}{code}{until}"), value)
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
    let (rows, value): (Vec<[String; 4]>, Vec<serde_json::Value>) =
        people.iter().filter_map(delegate_row).unzip();
    let people = table(["WHO", "ROLE", "CODE", "UNTIL"], &rows);
    actor.show(&value.into(), &people)
}

/// A delegate for people and for programs.
fn delegate_row(person: &PersonView) -> Option<([String; 4], serde_json::Value)> {
    let PersonView::Delegate {
        to,
        delegation,
        expires,
    } = person
    else {
        return None;
    };
    let (role, codes) = (delegation.role().as_str(), delegation.codes());
    let code = match delegation {
        Delegation::Grantor { .. } => joined(codes),
        Delegation::Auditor => "-".into(),
    };
    let until = expires.map_or("-".into(), shown);
    let value = serde_json::json!({
        "to": to.to_string(), "role": role, "codes": texts(codes), "until": until,
    });
    Some(([to.to_string(), role.to_owned(), code, until], value))
}

fn texts(codes: &[CodeIdentityDigest]) -> Vec<String> {
    codes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    /// The role and the codes of a line, as they are understood.
    fn added(line: &str) -> (RoleArg, Vec<String>) {
        let words = format!("sesemi delegate add {} {line}", "ab".repeat(32));
        let parsed = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Command::Delegate { command } = parsed.command else {
            panic!("another command")
        };
        let DelegateCommand::Add { role, code, .. } = command else {
            panic!("another command")
        };
        (role, code)
    }

    #[test]
    fn code_is_named_once_for_each_code_of_a_grantor_and_never_for_an_auditor() {
        let (role, code) = added("--role grantor --code aa --code bb --identity owner.identity");
        assert_eq!(
            (role, code.as_slice()),
            (RoleArg::Grantor, &["aa".into(), "bb".into()][..])
        );
        granting_only(role, &code).unwrap();
        let (role, code) = added("--role grantor --identity owner.identity");
        assert!(code.is_empty());
        granting_only(role, &code).unwrap();
        let (role, code) = added("--role auditor --identity owner.identity");
        granting_only(role, &code).unwrap();
        let (role, code) = added("--role auditor --code aa --identity owner.identity");
        let refused = granting_only(role, &code).unwrap_err().to_string();
        assert!(refused.contains("leave --code out"), "{refused}");
    }

    #[test]
    fn the_list_shows_in_which_code_a_grantor_grants() {
        let (to, code) = (PrincipalId([1; 32]), CodeIdentityDigest([2; 32]));
        let row = |delegation, expires| {
            let person = PersonView::Delegate {
                to,
                delegation,
                expires,
            };
            delegate_row(&person).unwrap()
        };
        let ([who, role, shown, until], value) =
            row(Delegation::Grantor { codes: vec![code] }, None);
        assert_eq!(who, to.to_string());
        assert_eq!(
            (role.as_str(), shown, until.as_str()),
            ("grantor", code.to_string(), "-")
        );
        assert_eq!(value["codes"], serde_json::json!([code.to_string()]));
        let ([_, role, shown, until], value) = row(Delegation::Auditor, Some(0));
        assert_eq!((role.as_str(), shown.as_str()), ("auditor", "-"));
        assert!(until.starts_with("1970-01-01"), "{until}");
        assert_eq!(value["codes"], serde_json::json!([]));
    }
}
