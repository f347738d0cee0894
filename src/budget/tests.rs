//! Tests of the budget: admission, shares, and that charges are released.

use super::*;

const MIB: u64 = 1 << 20;

fn budget(share_percent: u64) -> Arc<Budget> {
    Budget::new(Bounds { memory_max: 100 * MIB, streams_max: 10, share_percent })
}

#[test]
fn a_client_is_its_address_or_its_network_of_64_bits() {
    let of = |text: &str| principal_of(text.parse().unwrap());
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    let all = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "::1"].map(of);
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one) && *one != Principal::GATEWAY);
    }
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
    assert_eq!(budget.usage().refused[..2], [1, 1]);
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

fn with_quotas(named: &[(&str, Quota)], others: Quota) -> Arc<Budget> {
    let bounds = Bounds { memory_max: 100 * MIB, streams_max: 10, share_percent: 50 };
    let named = named.iter().map(|(name, quota)| (tenant(name), *quota));
    Budget::with_quotas(bounds, AppendRate::default(), TenantQuotas::new(named, others))
}

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

#[test]
fn the_principals_of_a_tenant_share_its_quota_and_other_tenants_have_their_own() {
    let quota = Quota { bytes_max: Some(30 * MIB), streams_max: Some(2), ..Quota::default() };
    let budget = with_quotas(&[("large", Quota { bytes_max: Some(60 * MIB), ..Quota::default() })], quota);
    let owner = |name: &str, principal| budget.owner_in(tenant(name), Principal(principal));
    let (one, other) = (owner("acme", 1), owner("acme", 2));
    let _held = Charge::new(&one, Account::Messages, 20 * MIB);
    assert_eq!(other.admit(10 * MIB), Ok(()));
    assert_eq!(other.admit(10 * MIB + 1), Err(Shortage::Tenant));
    for free in [owner("beta", 1), owner("large", 2)] {
        assert_eq!(free.admit(30 * MIB), Ok(()));
    }
    assert_eq!(owner("beta", 1).admit(30 * MIB + 1), Err(Shortage::Tenant));
    assert_eq!(owner("large", 1).admit(50 * MIB + 1), Err(Shortage::Share), "the share of a principal");
    assert_eq!(
        owner("default", 1).admit(40 * MIB),
        Ok(()),
        "the default tenant has the limits of the gateway"
    );

    let streams = [&one, &other].map(|owner| StreamCharge::new(owner, 100));
    assert_eq!(one.admit_stream(0), Err(Shortage::TenantStreams));
    assert_eq!(owner("beta", 1).admit_stream(0), Ok(()));
    drop(streams);
    assert_eq!(one.admit_stream(0), Ok(()));
}

/// After a restart the principals are unknown, and the tenant owns what it has stored by itself.
#[test]
fn what_is_stored_in_a_tenant_counts_for_it_whoever_stored_it() {
    let quota = Quota { bytes_max: Some(30 * MIB), ..Quota::default() };
    let budget = with_quotas(&[], quota);
    let restored = budget.owner(Principal::GATEWAY).in_tenant(tenant("acme"));
    let (mut log, mut sealed) = (Charges::default(), Charges::default());
    sealed.add(Principal::GATEWAY, &restored, 20 * MIB);
    log.add(Principal(1), &restored, 10 * MIB);
    assert_eq!(log.admit(Principal(2), &restored, 1), Err(Shortage::Tenant));
    assert_eq!(log.admit(Principal::GATEWAY, &restored, 1), Err(Shortage::Tenant));
    drop(sealed);
    assert_eq!(log.admit(Principal(2), &restored, 20 * MIB), Ok(()));
    drop((log, restored));
    assert_eq!(
        (budget.used(), budget.usage().principals),
        (0, 0),
        "a tenant that holds nothing has no state"
    );
}

#[test]
fn what_a_tenant_may_have_open_is_limited_until_it_ends() {
    let budget = with_quotas(&[("acme", Quota { open_max: Some(2), ..Quota::default() })], Quota::default());
    let open = |name: &str| OpenCharge::new(&budget, &tenant(name), false);
    let both = (open("acme").unwrap(), open("acme").unwrap());
    assert!(both.0.is_some() && both.1.is_some());
    for _ in 0..3 {
        assert_eq!(open("acme").unwrap_err(), Shortage::TenantOpen);
    }
    assert!(open("default").unwrap().is_none());
    let unlimited: Vec<_> = (0..10).map(|_| open("beta").unwrap()).collect();
    let count = |name: &str| {
        budget.tenants().into_iter().find(|(of, _)| *of == tenant(name)).map(|(_, counts)| counts)
    };
    assert_eq!((count("acme"), count("beta"), count("default")), (Some([0, 2]), Some([0, 10]), None));
    drop(unlimited);
    assert_eq!(count("beta"), None);
    let replacing = OpenCharge::new(&budget, &tenant("acme"), true).unwrap();
    assert!(replacing.is_some() && open("acme").is_err());
    drop((both.0, replacing));
    let again = open("acme").unwrap();
    assert!(again.is_some() && open("acme").is_err());
    drop((again, both.1));
    assert_eq!(budget.usage().principals, 0);
}

#[tokio::test(start_paused = true)]
async fn the_resident_set_is_read_more_rarely_while_nobody_is_connected() {
    let budget = Budget::unlimited();
    let watching = budget.clone();
    tokio::spawn(async move { watching.watch().await });
    let is_read = async |seconds| {
        budget.resident.store(u64::MAX, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        budget.resident.load(Ordering::Relaxed) != u64::MAX
    };
    assert!(is_read(2).await, "at the start");
    assert_eq!((is_read(7).await, is_read(2).await), (false, true));
    assert!(!is_read(2).await);
    let connection = ConnectionCharge::new(&budget.owner(Principal(1)));
    assert_eq!((is_read(1).await, is_read(2).await), (true, true));
    drop(connection);
}

#[tokio::test(start_paused = true)]
async fn the_rate_of_a_tenant_is_that_of_all_its_principals() {
    let quota = Quota { rate: AppendRate::new(10, 0), ..Quota::default() };
    let budget = with_quotas(&[], quota);
    let name = |of| StreamName::parse("a").unwrap().of_tenant(&tenant(of));
    let taken = |of, principal| {
        (0..100).filter(|_| budget.take_append(&name(of), Principal(principal), 1).is_ok()).count()
    };
    assert_eq!((taken("acme", 1), taken("acme", 2), taken("beta", 1)), (10, 0, 10));
    assert_eq!(taken("default", 1), 100);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!((taken("acme", 2), taken("acme", 1)), (10, 0));
}
