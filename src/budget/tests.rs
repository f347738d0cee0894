//! Tests of the budget: admission, shares, and that charges are released.

use super::*;

const MIB: u64 = 1 << 20;

fn budget(share_percent: u64) -> Arc<Budget> {
    Budget::new(Bounds { memory_max: 100 * MIB, streams_max: 10, share_percent })
}

#[test]
fn appends_are_refused_from_85_percent_on_and_accepted_again_below() {
    let budget = budget(100);
    let owner = budget.owner(Principal(1));
    let mut charge = Charge::new(&owner, Account::Messages, 84 * MIB);
    assert_eq!(owner.admit(MIB - 1), Ok(()));
    assert_eq!(owner.admit(MIB), Err(Shortage::Memory));
    charge.set(10 * MIB);
    let buffers = Charge::new(&owner, Account::Buffers, 80 * MIB);
    assert_eq!(owner.admit(0), Err(Shortage::Passing), "request bodies are a passing shortage");
    drop(buffers);
    assert_eq!(owner.admit(0), Ok(()));
    assert_eq!(budget.usage().refused, [1, 1, 0, 0, 0]);
    charge.set(95 * MIB);
    assert!(budget.is_critical());
}

#[test]
fn one_principal_has_a_share_of_the_memory_and_of_the_streams() {
    let budget = budget(50);
    let (one, other) = (budget.owner(Principal(1)), budget.owner(Principal(2)));
    let _held = Charge::new(&one, Account::Messages, 50 * MIB);
    assert_eq!(one.admit(1), Err(Shortage::Share));
    assert_eq!(other.admit(1), Ok(()));
    let streams: Vec<_> = (0..5).map(|_| StreamCharge::new(&other, 100)).collect();
    assert_eq!(other.admit_stream(0), Err(Shortage::OwnStreams));
    let third = budget.owner(Principal(3));
    let more: Vec<_> = (0..5).map(|_| StreamCharge::new(&third, 100)).collect();
    assert_eq!(budget.owner(Principal(4)).admit_stream(0), Err(Shortage::Streams));
    drop((streams, more));
    assert_eq!(other.admit_stream(0), Ok(()));
    assert_eq!(budget.owner(Principal::GATEWAY).admit(30 * MIB), Ok(()));
}

#[test]
fn a_dropped_charge_is_released_and_leaves_no_owner() {
    let budget = budget(50);
    let creator = budget.owner(Principal(1));
    let mut charges = Charges::default();
    for n in 0..1000 {
        charges.add(Principal(n % 3), &creator, 100);
    }
    let charged = budget.used();
    assert!((100_000..=130_000).contains(&charged), "{charged}");
    charges.scale(100_000, 100_000);
    assert_eq!(budget.used(), 100_000);
    charges.scale(150_000, 100_000);
    assert!(budget.used().abs_diff(150_000) <= 3);
    charges.scale(50_000, 150_000);
    assert!(budget.used().abs_diff(50_000) <= 3);
    drop(charges);
    assert_eq!((budget.used(), budget.usage().principals), (0, 1));
    drop(creator);
    assert_eq!(budget.usage().principals, 0);
}

#[test]
fn size_classes_are_those_of_the_allocator() {
    let classes = [(0, 0), (1, 8), (9, 16), (100, 112), (128, 128), (129, 160), (161, 192), (257, 320)];
    for (bytes, class) in classes.into_iter().chain([(1025, 1280), (4096, 4096), (5000, 5120)]) {
        assert_eq!(allocated_bytes(bytes), class, "{bytes}");
    }
}

#[test]
fn memory_that_no_account_explains_counts_as_used() {
    let budget = Budget::unlimited();
    let used = budget.refresh();
    assert!(used > 0 && used == budget.usage().resident);
}
