//! What receipts of SMS change.

use super::*;
use crate::hub::ReceiptState;

fn sms() -> AppPolicy {
    AppPolicy { credential: CredentialKind::Phone, min_interval: seconds(1), ..policy("sms") }
}

impl World {
    fn receipt(&self, id: &ClientId, state: ReceiptState) {
        let credential = credential(id, "sms");
        let number = credential.token().unwrap();
        self.devices.note_receipt("sms", number, state, self.now, self.wall());
    }

    /// Wakes a device by SMS, which the message centre accepts, after the pauses of a silent device.
    fn sms(&mut self, position: u64) {
        self.pass(seconds(48 * 3600));
        assert_eq!(self.woken(), None, "the wake before has ended");
        self.pass(seconds(48 * 3600));
        self.append(position);
        let order = self.order();
        assert_eq!(&*order.app, "sms");
        self.report(&order, ok());
    }
}

#[test]
fn a_number_is_gone_after_two_receipts_once_another_one_shows_that_sms_arrive() {
    let mut world = World::new(vec![sms()]);
    let (gone, fine) = (world.device("gone", &["sms"]), world.device("fine", &["sms"]));
    for position in [6, 7] {
        world.pass(seconds(48 * 3600));
        world.append(position);
        world.orders().iter().for_each(|order| world.report(order, ok()));
        assert_eq!(world.gone(&gone), [false]);
        world.receipt(&gone, ReceiptState::Undeliverable);
    }
    assert_eq!(world.gone(&gone), [true], "it is left alone");
    assert!(world.devices.take_removed().is_empty(), "that the centre accepts SMS proves nothing");
    world.receipt(&fine, ReceiptState::Delivered);
    let removed = world.devices.take_removed();
    assert_eq!(removed.iter().map(|removed| &removed.device).collect::<Vec<_>>(), [&gone]);
    let table = world.devices.table.lock();
    assert!(table.devices.get(&gone).unwrap().channels.is_empty());
    assert_eq!(table.by_phone.len(), 1, "no receipt finds the device any more");
}

#[test]
fn a_message_centre_that_delivers_nothing_removes_no_number() {
    let mut world = World::new(vec![sms()]);
    let phones: Vec<_> = (0..20).map(|number| world.device(&format!("phone{number}"), &["sms"])).collect();
    for position in [6, 7] {
        world.pass(seconds(48 * 3600));
        world.append(position);
        world.orders().iter().for_each(|order| world.report(order, ok()));
        phones.iter().for_each(|phone| world.receipt(phone, ReceiptState::Undeliverable));
    }
    let fine = world.device("fine", &["sms"]);
    world.receipt(&fine, ReceiptState::Delivered);
    assert!(world.devices.take_removed().is_empty());
    assert!(phones.iter().all(|phone| world.gone(phone) == [false]), "all are tried again");
}

#[test]
fn a_delivered_sms_or_a_poll_between_two_that_were_not_keeps_the_number() {
    for by_poll in [false, true] {
        let mut world = World::new(vec![sms()]);
        let phone = world.device("phone", &["sms"]);
        world.sms(6);
        world.receipt(&phone, ReceiptState::Undeliverable);
        world.sms(7);
        if by_poll {
            world.poll(&phone, 7);
        } else {
            world.receipt(&phone, ReceiptState::Delivered);
        }
        world.sms(8);
        world.receipt(&phone, ReceiptState::Undeliverable);
        assert_eq!(world.gone(&phone), [false]);
    }
}

#[test]
fn an_sms_that_cannot_be_delivered_goes_on_to_the_next_channel_at_once() {
    for state in [ReceiptState::Undeliverable, ReceiptState::Rejected] {
        let world = World::new(vec![sms(), policy("other")]);
        let phone = world.device("phone", &["sms", "other"]);
        world.append(6);
        world.report(&world.order(), ok());
        world.receipt(&phone, ReceiptState::Other);
        assert_eq!(world.woken(), None);
        world.receipt(&phone, state);
        assert_eq!(world.woken().as_deref(), Some("other"), "{state:?}");
    }
}

#[test]
fn an_sms_that_expires_is_followed_by_another_one_without_an_append_within_the_budget() {
    for patience in [Duration::ZERO, seconds(60)] {
        let limited = AppPolicy { min_interval: seconds(1), per_day: Some(3), ..sms() };
        let mut world = World::new(vec![limited]);
        let phone = world.registered("phone", &["sms"], |device| device.escalate_after = patience);
        world.append(6);
        let mut sent = 0;
        for _ in 0..1000 {
            if let Some(order) = world.orders().pop() {
                world.report(&order, ok());
                sent += 1;
                world.pass(seconds(61));
                assert_eq!(world.woken(), None);
                world.receipt(&phone, ReceiptState::Expired);
            }
            world.pass(seconds(60));
        }
        assert_eq!(sent, 3, "{patience:?}");
        world.poll(&phone, 6);
        world.receipt(&phone, ReceiptState::Expired);
        world.pass(seconds(48 * 3600));
        assert_eq!(world.woken(), None, "a receipt that comes late wakes nobody");
    }
}

#[test]
fn a_receipt_that_overtakes_the_response_counts_after_it() {
    let world = World::new(vec![sms(), policy("other")]);
    let phone = world.device("phone", &["sms", "other"]);
    world.append(6);
    let order = world.order();
    world.receipt(&phone, ReceiptState::Undeliverable);
    assert_eq!(world.woken(), None);
    world.report(&order, ok());
    assert_eq!(world.woken().as_deref(), Some("other"));
}

#[test]
fn receipts_for_others_change_nothing() {
    let world = World::new(vec![sms(), policy("push")]);
    let phone = world.device("phone", &["sms"]);
    world.append(6);
    world.report(&world.order(), ok());
    let before = world.devices.table.lock().devices.get(&phone).unwrap().clone();
    for (app, number) in [("sms", "+1"), ("push", "phone-sms"), ("none", "phone-sms")] {
        world.devices.note_receipt(app, number, ReceiptState::Undeliverable, world.now, world.wall());
    }
    assert_eq!(*world.devices.table.lock().devices.get(&phone).unwrap(), before);
}
