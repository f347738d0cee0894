//! Scenarios of the first seeds, which go well, and go the same way each time.

use super::{Fuzz, play};

#[test]
fn the_first_seeds_go_well() {
    let verdict = Fuzz { first: 0, count: 100, keeps_trace: false }.run().unwrap();
    assert_eq!((verdict.wrong, verdict.seed), (Vec::<String>::new(), 0));
}

#[test]
fn the_same_seed_goes_the_same_way() {
    let _without_programs = crate::PROGRAMS.read();
    for seed in 0..6 {
        let (first, again) = (play(seed, true).unwrap(), play(seed, true).unwrap());
        assert!(first.trace.lines().count() > 20, "{}", first.trace);
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert_eq!(first.digest, again.digest);
    }
}
