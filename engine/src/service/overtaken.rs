//! Which templates a client need not be told any more, because a tip comes (specification 7.2 and 7.3).
//!
//! A template that is no future one belongs to the tip before, and with SetNewPrevHash the server forgets all of a class's
//! future templates but the one that is named. A client that has not heard of a template cannot ask for it, so nothing counts
//! on the delivery of those: a reader that is slow gets the tip, its template, and what came after.

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::MessageKind;

/// Bytes of a template's id, which a payload begins with in both messages.
const TEMPLATE_ID_LEN: usize = 8;

/// Whether `waiting` is a template other than the one that `tip` names, or an older tip.
pub(super) fn is_overtaken(waiting: &[u8], tip: &[u8]) -> bool {
    const NEW_TEMPLATE: u8 = MessageKind::NewTemplate.row().msg_type;
    const SET_NEW_PREV_HASH: u8 = MessageKind::TemplateSetNewPrevHash.row().msg_type;
    let Some((header, payload)) = waiting.split_first_chunk::<HEADER_LEN>() else { return false };
    let header = FrameHeader::parse(header);
    let named = tip.get(HEADER_LEN..HEADER_LEN + TEMPLATE_ID_LEN);
    match (header.extension_type, header.msg_type) {
        (0, NEW_TEMPLATE) => payload.get(..TEMPLATE_ID_LEN) != named,
        (0, SET_NEW_PREV_HASH) => true,
        _ => false,
    }
}
