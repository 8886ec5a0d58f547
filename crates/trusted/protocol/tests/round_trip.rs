//! Whatever a command, a query, an entry or a message on the channel may hold reads back as it was written; and of a signed
//! message not one bit can be changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "round_trip/actions.rs"]
mod actions;
#[path = "round_trip/ids.rs"]
mod ids;
#[path = "round_trip/messages.rs"]
mod messages;
#[path = "round_trip/queries.rs"]
mod queries;

use core::fmt::Debug;

use minicbor::{Decode, Encode};
use proptest::prelude::*;
use sesemi_protocol::audit::{self, AuditItem, Concerned};
use sesemi_protocol::command;
use sesemi_protocol::limits::MAX_WIRE_MESSAGE;
use sesemi_protocol::query;
use sesemi_protocol::receipt::{Head, Receipt, StatePoint};
use sesemi_protocol::share::Share;
use sesemi_protocol::{Digest, SecretKey, SigningIdentity, cbor};

fn identity(seed: [u8; 32]) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes(seed)).unwrap()
}

/// Reads back as written, and not with a byte more or less.
fn reads_back<T>(value: &T) -> Result<(), TestCaseError>
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug,
{
    let limit = 16 * MAX_WIRE_MESSAGE;
    let bytes = cbor::encode(value).unwrap();
    let read: T = cbor::decode(&bytes, limit).unwrap();
    prop_assert_eq!(&read, value);
    let longer = [bytes.as_slice(), &[0]].concat();
    prop_assert!(cbor::decode::<T>(&longer, limit).is_err());
    prop_assert!(cbor::decode::<T>(&bytes[..bytes.len() - 1], limit).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn any_command_reads_back_as_signed(seed: [u8; 32], command in actions::command()) {
        let signer = identity(seed);
        let signed = command.sign(&signer).unwrap();
        let parsed = command::parse(&signed).unwrap();
        prop_assert_eq!(parsed.claimed_principal(), signer.public().principal_id());
        prop_assert_eq!(parsed.verify(signer.public()).unwrap(), command);
    }

    #[test]
    fn any_query_reads_back_as_signed(seed: [u8; 32], query in queries::query()) {
        let asker = identity(seed);
        let signed = query.sign(&asker).unwrap();
        let parsed = query::parse(&signed).unwrap();
        prop_assert_eq!(parsed.claimed_principal(), asker.public().principal_id());
        prop_assert_eq!(parsed.verify(asker.public()).unwrap(), query);
    }

    #[test]
    fn any_call_reads_back(call in messages::call()) {
        reads_back(&call)?;
    }

    #[test]
    fn any_reply_reads_back(reply in messages::reply()) {
        reads_back(&reply)?;
    }

    #[test]
    fn any_answer_reads_back(answer in queries::answer()) {
        reads_back(&answer)?;
    }

    #[test]
    fn any_share_reads_back_on_the_wire_and_from_its_text(share in queries::share()) {
        reads_back(&share)?;
        prop_assert_eq!(Share::from_text(&share.to_text()).unwrap(), share);
    }

    #[test]
    fn any_entry_reads_back_and_names_who_signed_it(entry in messages::entry()) {
        reads_back(&entry)?;
        let command = entry.unverified_command().unwrap();
        match (command, entry.concerned().unwrap()) {
            (Some((signer, command)), Concerned::Only(principals)) => {
                prop_assert!(principals.contains(&signer));
                prop_assert!(command.action.owner().is_none_or(|owner| principals.contains(owner)));
            }
            (Some((_, command)), Concerned::Everybody) => {
                let of_service = matches!(
                    command.action,
                    command::Action::NameCustodians { .. } | command::Action::ApproveUpgrade { .. }
                );
                prop_assert!(of_service);
            }
            (None, _) => {}
        }
    }

    #[test]
    fn hiding_entries_makes_no_difference_to_where_a_log_leads(
        from in ids::point(),
        items in prop::collection::vec((queries::audit_item(), any::<bool>()), 0..12),
    ) {
        let shown: Vec<AuditItem> = items.iter().map(|(item, _)| item.clone()).collect();
        let mixed: Vec<AuditItem> = items
            .iter()
            .map(|(item, hide)| if *hide { AuditItem::Hidden(item.digest()) } else { item.clone() })
            .collect();
        let end = audit::follow(&from, &shown);
        prop_assert_eq!(audit::follow(&from, &mixed), end);
        for left_out in 0..shown.len() {
            let mut fewer = shown.clone();
            fewer.remove(left_out);
            prop_assert_ne!(audit::follow(&from, &fewer), end);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn of_a_signed_command_no_byte_can_be_changed(
        seed: [u8; 32], command in actions::command(), flip in 1..=u8::MAX,
    ) {
        let signer = identity(seed);
        let signed = command.sign(&signer).unwrap();
        let accepted = |bytes: &[u8]| {
            command::parse(bytes).and_then(|parsed| parsed.verify(signer.public())).is_ok()
        };
        prop_assert!(accepted(&signed));
        every_changed_byte(&signed, flip, accepted)?;
    }

    #[test]
    fn of_a_signed_query_receipt_or_head_no_byte_can_be_changed(
        seed: [u8; 32], query in queries::query(), point in ids::point(), at: u64, flip in 1..=u8::MAX,
    ) {
        let signer = identity(seed);
        let public = signer.public();
        let signed = query.sign(&signer).unwrap();
        let accepted = |bytes: &[u8]| query::parse(bytes).and_then(|parsed| parsed.verify(public)).is_ok();
        prop_assert!(accepted(&signed));
        every_changed_byte(&signed, flip, accepted)?;

        let state = StatePoint { service: public.service_id(), point };
        let receipt = Receipt { state, principal: public.principal_id(), command: Digest::of(&signed) };
        let acknowledged = receipt.sign(&signer).unwrap();
        prop_assert_eq!(Receipt::verify(&acknowledged, public, &signed).unwrap(), receipt);
        every_changed_byte(&acknowledged, flip, |bytes| Receipt::verify(bytes, public, &signed).is_ok())?;

        let head = Head { state, at };
        let signed = head.sign(&signer).unwrap();
        prop_assert_eq!(Head::verify(&signed, public).unwrap(), head);
        every_changed_byte(&signed, flip, |bytes| Head::verify(bytes, public).is_ok())?;
    }
}

fn every_changed_byte(
    signed: &[u8],
    flip: u8,
    accepted: impl Fn(&[u8]) -> bool,
) -> Result<(), TestCaseError> {
    for place in 0..signed.len() {
        let mut changed = signed.to_vec();
        changed[place] ^= flip;
        prop_assert!(!accepted(&changed), "byte {}", place);
    }
    Ok(())
}
