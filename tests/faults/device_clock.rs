//! The wall clock is set while devices sleep: registrations and budgets do not follow it, quiet hours do.

use serde_json::json;
use tokio::time::timeout;

use crate::clock::World;
use crate::world::provider::Provider;
use crate::world::{PATIENCE, get, post, put, until};

const STREAM: &str = "/v1/stream/news";

/// A registration that is quiet from an hour before `hour` to two hours after it, in UTC.
fn registration(hour: i8) -> serde_json::Value {
    let at = |hour: i8| format!("{:02}:00", hour.rem_euclid(24));
    json!({
        "streams": {"news": null},
        "channels": [{"app": "push", "credential": "token"}],
        "quiet": {"from": at(hour - 1), "to": at(hour + 2)},
        "expires_in": 86400,
    })
}

#[tokio::test]
async fn devices_are_woken_at_the_right_time_through_steps_of_the_wall_clock() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let (secret, config) = (folder.path().join("secret"), folder.path().join("config.toml"));
    std::fs::write(&secret, "a secret of the webhook").unwrap();
    let app = format!(
        "[[wake]]\nname = \"push\"\nkind = \"webhook\"\nurl = \"http://{}/\"\nkey_file = {secret:?}\nmin_interval = \"1s\"\nburst = 1\n",
        provider.address
    );
    std::fs::write(&config, app).unwrap();
    let arguments = ["--config", config.to_str().unwrap()].map(str::to_owned);
    let mut world = World::start_with(arguments.to_vec()).await;
    world.gateway.send(put(STREAM).json("")).await.expect(201);
    let hour = world.date().await.to_zoned(jiff::tz::TimeZone::UTC).hour();
    world.gateway.send(put("/v1/devices/phone").json(registration(hour))).await.expect(201);
    let append = async |world: &World| drop(world.gateway.send(post(STREAM).json("1")).await.expect(204));
    append(&world).await;
    let quiet = r#"pollgate_wakes_suppressed_total{reason="quiet_hours"}"#;
    until("it is quiet", async || world.gateway.metric(quiet).await >= 1.0).await;
    assert!(provider.try_next().is_none());

    // Of each step the device hears within seconds, not when its quiet hours would have ended without it.
    for (offset, restarts) in
        [("+6h", false), ("-400d6h", false), ("+400d6h", true), ("-20000d6h", true), ("+6h", false)]
    {
        world.set(offset);
        if restarts {
            world = world.restart().await;
        }
        let wake = timeout(PATIENCE, provider.next()).await.expect(offset);
        assert_eq!(wake.json()["device"], "phone", "{offset}");
        while provider.try_next().is_some() {}
        // The poll of everything confirms it; the registration of a day is still there.
        let read = world.gateway.send(get(format!("{STREAM}?offset=-1&client=phone"))).await.expect(200);
        let again = get(format!("{STREAM}?offset={}&client=phone", read.next_offset()));
        world.gateway.send(again).await.expect(200);
        let device = world.gateway.send(get("/v1/devices/phone")).await.expect(200).json();
        assert_eq!(
            (&device["pending"], &device["wake"]),
            (&json!(false), &json!(null)),
            "{offset}: {device}"
        );
        append(&world).await;
    }
}
