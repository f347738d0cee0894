//! Drives the fuzz targets: mutates valid inputs, and checks the invariants of each target with them.
//!
//! As a unit test, a target checks a fixed number of inputs from a fixed seed. `fuzz/run` runs it for a given time with a
//! random seed. Accepted inputs are mutated further, so that mutations accumulate.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tikv_jemalloc_ctl::thread;

/// Counts the allocations of a thread, so that targets can limit them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Seed of the unit tests.
const SEED: u64 = 7;

/// Maximum number of accepted inputs that are kept for mutation, in addition to the target's own.
const LEARNED_MAX: usize = 500;

/// By how much the memory that a target holds may grow in the second half of its inputs: the inputs that are kept, and some more.
const GROWTH_MAX: i64 = 16 * 1024 * 1024;

/// Longer inputs are truncated.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// A parser or format to test.
pub(crate) struct Target<'a> {
    /// Name of its file in `fuzz`, and of its folder in `fuzz/corpus`.
    pub(crate) name: &'static str,
    /// Valid inputs.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// Byte strings with a meaning in the input's format.
    pub(crate) words: &'a [&'a [u8]],
    /// Repairs the length or checksum of a mutated input.
    pub(crate) mend: fn(Vec<u8>, &mut Rng) -> Vec<u8>,
    /// Number of inputs of a unit test.
    pub(crate) inputs: u64,
    /// Maximum bytes that the check of one input may allocate, including freed ones: a base, and an amount per byte of input.
    pub(crate) allocated_max: (u64, u64),
}

/// Whether the target accepted an input as valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

/// Checks the inputs of a target. `check` panics if an invariant is broken.
#[allow(clippy::disallowed_methods, reason = "targets may pause the clock of tokio")]
pub(crate) fn fuzz(target: &Target<'_>, mut check: impl FnMut(&[u8]) -> Verdict) {
    if let Some(path) = std::env::var_os("FUZZ_INPUT") {
        let input = std::fs::read(&path).expect("the input can be read");
        return println!("{}: {:?}", path.display(), check(&input));
    }
    let seconds: Option<f64> = variable("FUZZ_SECONDS");
    let random_seed = if seconds.is_some() { fastrand::u64(..) } else { SEED };
    let seed = variable("FUZZ_SEED").unwrap_or(random_seed);
    let (since, mut random) = (Instant::now(), Rng::with_seed(seed));
    let (mut known, first) = (target.seeds.clone(), target.seeds.len());
    known.extend(corpus(target.name));
    let inputs_max: u64 = variable("FUZZ_INPUTS").unwrap_or(target.inputs);
    // Whether a half, or all, of the inputs are checked.
    let is_over = |inputs: u64, parts: u32| match seconds {
        // The clock is read only for every 64th input.
        Some(seconds) => {
            inputs.is_multiple_of(64)
                && since.elapsed() >= Duration::from_secs_f64(seconds / f64::from(parts))
        }
        None => inputs >= inputs_max / u64::from(parts),
    };
    let mut held_halfway = None;
    let (mut inputs, mut accepted, mut allocated_most) = (0, 0, 0);
    let mut check = |input: &[u8]| {
        let before = allocated();
        let verdict = catch_unwind(AssertUnwindSafe(|| check(input)));
        let allocated = allocated() - before;
        allocated_most = allocated_most.max(allocated);
        let (base, each) = target.allocated_max;
        let verdict = verdict.unwrap_or_else(|panic| {
            report(target.name, seed, inputs, input);
            resume_unwind(panic)
        });
        if allocated > base + each * input.len() as u64 {
            report(target.name, seed, inputs, input);
            panic!("{allocated} bytes were allocated for {} bytes of input", input.len());
        }
        inputs += 1;
        accepted += u64::from(verdict == Verdict::Accepted);
        (verdict, inputs)
    };
    for (number, input) in known.iter().enumerate() {
        let (verdict, _) = check(input);
        assert!(
            number >= first || verdict == Verdict::Accepted,
            "a valid input is refused: {}",
            shown(input)
        );
    }
    let unlearned = known.len();
    loop {
        let input = mutated(target, &known, &mut random);
        let (verdict, inputs) = check(&input);
        if verdict == Verdict::Accepted && random.u8(..8) == 0 {
            if known.len() < unlearned + LEARNED_MAX {
                known.push(input);
            } else {
                known[unlearned + random.usize(..LEARNED_MAX)] = input;
            }
        }
        if held_halfway.is_none() && is_over(inputs, 2) {
            held_halfway = Some(held());
        }
        if is_over(inputs, 1) {
            break;
        }
    }
    let growth = held() - held_halfway.unwrap_or_else(held);
    println!(
        "{}: {inputs} inputs in {:.1?} from seed {seed}, {accepted} accepted; at most {allocated_most} bytes allocated \
         for one; {growth} bytes more held than halfway",
        target.name,
        since.elapsed()
    );
    assert!(growth <= GROWTH_MAX, "the memory that is held has grown by {growth} bytes");
    // If nearly all inputs are refused, the mutations are too coarse to test anything after the first check.
    assert!(accepted > inputs / 50 && accepted < inputs, "{accepted} of {inputs} accepted");
}

/// Returns a random mutation of a known input.
fn mutated(target: &Target<'_>, known: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let any = |random: &mut Rng| &known[random.usize(..known.len())];
    let mut bytes = any(random).clone();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..24)).min(bytes.len());
        match random.u8(..9) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.u8(..8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.u8(..)),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.u8(..)),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
            6 => {
                let other = any(random);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
            kind if !target.words.is_empty() => {
                let word = target.words[random.usize(..target.words.len())];
                // A header line begins after a line break.
                let line = bytes[at..].iter().position(|byte| *byte == b'\n').map(|end| at + end + 1);
                let at = line.filter(|_| random.bool()).unwrap_or(at);
                bytes.splice(at..if kind == 7 { at } else { end.max(at) }, word.iter().copied());
            }
            _ => {}
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    (target.mend)(bytes, random)
}

/// Saves the failing input and prints how to check it again.
fn report(target: &str, seed: u64, number: u64, input: &[u8]) {
    let path = folder().join("failures").join(format!("{target}-{seed}-{number}"));
    let saved = path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok())
        && std::fs::write(&path, input).is_ok();
    eprintln!("{target}: input {number} from seed {seed} breaks a promise: {}", shown(input));
    if saved {
        eprintln!("FUZZ_INPUT={} fuzz/run {target}    checks it again", path.display());
    }
}

fn shown(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

/// Returns inputs that failed in the past, in the order of their file names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(folder().join("corpus").join(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an input")).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Returns the bytes that this thread has allocated until now and not freed.
pub(crate) fn held() -> i64 {
    let freed = thread::deallocatedp::read().expect("jemalloc counts").get();
    let [allocated, freed] = [allocated(), freed].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    allocated - freed
}

/// Returns the bytes that this thread has allocated until now.
fn allocated() -> u64 {
    thread::allocatedp::read().expect("jemalloc counts").get()
}
