//! Events as frameworks receive them.

use mezz_proto::{
    ids::OfferId,
    v1::{
        self,
        scheduler::{
            Event,
            event::{Error, Failure, Offers, Rescind, Subscribed, Type, Update},
        },
    },
};

fn of(kind: Type) -> Event {
    Event { r#type: Some(kind as i32), ..Default::default() }
}

pub(in crate::core) fn subscribed(subscribed: Subscribed) -> Event {
    Event { subscribed: Some(subscribed), ..of(Type::Subscribed) }
}

pub(in crate::core) fn heartbeat() -> Event {
    of(Type::Heartbeat)
}

pub(in crate::core) fn error(message: impl Into<String>) -> Event {
    Event { error: Some(Error { message: message.into() }), ..of(Type::Error) }
}

pub(in crate::core) fn offers(offers: Vec<v1::Offer>) -> Event {
    Event { offers: Some(Offers { offers }), ..of(Type::Offers) }
}

pub(in crate::core) fn rescind(offer: &OfferId) -> Event {
    Event { rescind: Some(Rescind { offer_id: offer.into() }), ..of(Type::Rescind) }
}

pub(in crate::core) fn update(status: v1::TaskStatus) -> Event {
    Event { update: Some(Update { status }), ..of(Type::Update) }
}

pub(in crate::core) fn operation(status: v1::OperationStatus) -> Event {
    Event {
        update_operation_status: Some(v1::scheduler::event::UpdateOperationStatus { status }),
        ..of(Type::UpdateOperationStatus)
    }
}

pub(in crate::core) fn message(message: v1::scheduler::event::Message) -> Event {
    Event { message: Some(message), ..of(Type::Message) }
}

pub(in crate::core) fn failure(failure: Failure) -> Event {
    Event { failure: Some(failure), ..of(Type::Failure) }
}
