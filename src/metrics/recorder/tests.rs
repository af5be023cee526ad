use std::sync::Arc;

use super::*;
use crate::metrics::slot::OWNED;
use crate::namespace::Namespace;

fn id(namespace: Namespace) -> NamespaceId {
    namespace.id().unwrap()
}

#[test]
fn counts_are_exact_under_four_threads() {
    let recorder = Recorder::new(Clock::manual(), true);
    let (curves, general) = (id(Namespace::CURVES), id(Namespace::GENERAL));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    recorder.hit(Tier::Memory, curves);
                    recorder.miss(general, MissCause::Absent);
                    recorder.tier_miss(Tier::Memory, general);
                }
            });
        }
    });
    let seen = recorder.snapshot([None; 3], None);
    assert_eq!((seen.hits, seen.misses, seen.memory.hits, seen.memory.misses), (400_000, 400_000, 400_000, 400_000));
    assert_eq!(seen.hit_rate, 0.5);
    assert_eq!(seen.miss_causes.absent, 400_000);
    assert_eq!(seen.namespace(Namespace::CURVES).unwrap().hits, 400_000);
    assert_eq!(seen.namespace(Namespace::CURVES).unwrap().misses, 0);
    assert!(seen.namespace(Namespace::USER_DATA).is_none());
}

#[test]
fn counts_are_exact_with_more_threads_than_slots_and_with_threads_that_come_and_go() {
    let recorder = Recorder::new(Clock::manual(), true);
    let ns = id(Namespace::CURVES);
    for _ in 0..3 {
        let all_there = std::sync::Barrier::new(OWNED + 16);
        std::thread::scope(|scope| {
            for _ in 0..OWNED + 16 {
                scope.spawn(|| {
                    recorder.hit(Tier::Disk, ns);
                    all_there.wait();
                    (0..1_000).for_each(|_| recorder.hit(Tier::Disk, ns));
                });
            }
        });
    }
    assert_eq!(recorder.snapshot([None; 3], None).disk.hits, 3 * (OWNED as u64 + 16) * 1_001);
}

#[test]
fn an_idle_recorder_divides_by_nothing_and_prints_a_table() {
    let seen = Recorder::new(Clock::manual(), true).snapshot([None; 3], None);
    assert_eq!((seen.hit_rate, seen.error_rate), (0.0, 0.0));
    assert!(seen.namespaces.is_empty());
    assert!(seen.to_string().contains("memory"));
}

#[test]
fn percentiles_of_known_samples_are_right_to_two_digits() {
    let recorder = Recorder::new(Clock::manual(), true);
    for ms in 1..=1_000 {
        recorder.timed(Tier::Redis, Verb::Get, Duration::from_millis(ms));
    }
    recorder.timed(Tier::Disk, Verb::Set, Duration::ZERO);
    recorder.timed(Tier::Disk, Verb::Set, Duration::MAX);
    let seen = recorder.snapshot([None; 3], None);
    let get = &seen.redis.get;
    assert_eq!(get.count, 1_000);
    for (told, ms) in [(get.p50, 500.0), (get.p90, 900.0), (get.p99, 990.0), (get.p999, 999.0), (get.max, 1_000.0)] {
        let off = (told.as_secs_f64() * 1e3 / ms - 1.0).abs();
        assert!(off < 0.01, "{told:?} for {ms} ms");
    }
    assert_eq!(seen.disk.set.max, Duration::from_secs(60));
    assert_eq!(seen.disk.set.count, 2);
    assert_eq!(seen.memory.get, Latency::default());
}

#[test]
fn the_error_rate_speaks_of_the_last_minute_and_forgets() {
    let clock = Clock::manual();
    let recorder = Recorder::new(clock.clone(), true);
    let ns = id(Namespace::CURVES);
    assert_eq!(recorder.error_rate_last_minute(), 0.0);
    (0..100).for_each(|_| recorder.hit(Tier::Memory, ns));
    (0..10).for_each(|_| recorder.error(Tier::Redis));
    assert_eq!(recorder.error_rate_last_minute(), 0.1);
    for _ in 0..61 {
        clock.advance(Duration::from_secs(1));
        recorder.tick();
    }
    assert_eq!(recorder.error_rate_last_minute(), 0.0);
    (0..4).for_each(|_| recorder.set(ns));
    recorder.error(Tier::Disk);
    assert_eq!(recorder.error_rate_last_minute(), 0.25);
    let seen = recorder.snapshot([None; 3], None);
    assert_eq!((seen.errors, seen.disk.errors, seen.redis.errors), (11, 1, 10));
    assert_eq!(seen.error_rate, 11.0 / 104.0);
}

#[test]
fn one_operation_in_sixty_four_is_timed() {
    let recorder = Recorder::new(Clock::manual(), true);
    let timed = std::thread::scope(|scope| {
        let count = || (0..640).filter(|_| recorder.sample().is_some()).count();
        scope.spawn(count).join().unwrap()
    });
    assert_eq!(timed, 10);
}

#[test]
fn a_timed_read_of_the_page_cache_stands_for_those_that_were_not() {
    let recorder = Recorder::new(Clock::manual(), true);
    let read = || {
        // As a read of the disk does: memory was asked first.
        recorder.sample();
        recorder.sample_cached().map(|(_, reads)| reads)
    };
    let stood_for =
        std::thread::scope(|scope| scope.spawn(|| (0..17).filter_map(|_| read()).collect::<Vec<_>>()).join().unwrap());
    assert_eq!(stood_for, [1, 8, 8]);
    recorder.timed_for(Tier::Disk, Verb::Get, Duration::from_micros(1), 99);
    recorder.timed_for(Tier::Disk, Verb::Get, Duration::from_micros(100), 1);
    let get = recorder.snapshot([None; 3], None).disk.get;
    assert_eq!((get.count, get.p90.as_nanos() / 100, get.max.as_micros() / 10), (100, 10, 10));
}

#[test]
fn what_the_tiers_hold_and_what_moved_stands_in_the_snapshot() {
    let recorder = Recorder::new(Clock::manual(), true);
    recorder.promoted(Tier::Disk, 2);
    recorder.demoted(Tier::Memory, 3);
    recorder.expired(Tier::Memory, 1);
    recorder.invalidated(7);
    recorder.fetch(FetchOutcome::Replaced);
    recorder.stale(id(Namespace::CURVES));
    let usage = Usage { entries: 5, bytes: 600, capacity: 1_000, evictions: 4, expirations: 2 };
    let seen = recorder.snapshot([Some(usage), None, None], Some(9));
    assert_eq!((seen.disk.promotions, seen.memory.demotions, seen.memory.expirations), (2, 3, 3));
    assert_eq!((seen.memory.entries, seen.memory.bytes, seen.memory.capacity, seen.memory.evictions), (5, 600, 1_000, 4));
    assert_eq!((seen.invalidation_events, seen.invalidated_entries, seen.fetches.replaced), (1, 7, 1));
    assert_eq!((seen.stale, seen.redis_memory), (1, Some(9)));
}

#[test]
fn a_cache_after_another_counts_from_nothing_in_the_cells_of_the_first() {
    let ns = id(Namespace::CURVES);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let recorder = Recorder::new(Clock::manual(), true);
                (0..200).for_each(|_| read(&recorder, ns));
                let seen = recorder.snapshot([None; 3], None);
                assert_eq!(seen.memory.hits, 200);
                assert!(seen.memory.get.count <= 4, "times of the cache before: {:?}", seen.memory.get);
            }
        });
    });
}

#[test]
fn caches_and_namespaces_in_turn_are_kept_apart() {
    let recorders = [(); 3].map(|()| Recorder::new(Clock::manual(), true));
    // More than there are seats, so that some thread of them is always put out of its own.
    let namespaces: Vec<NamespaceId> = (0..12).map(|at| id(Namespace::parse(&format!("turns-{at}")).unwrap())).collect();
    for turn in 0..100 {
        for (of, recorder) in recorders.iter().enumerate() {
            for (at, ns) in namespaces.iter().enumerate().filter(|(at, _)| turn % (at + of + 1) == 0) {
                read(recorder, *ns);
                if at == of {
                    recorder.resident_miss(*ns, MissCause::Absent);
                }
            }
        }
    }
    for (of, recorder) in recorders.iter().enumerate() {
        let seen = recorder.snapshot([None; 3], None);
        for (at, ns) in namespaces.iter().enumerate() {
            let of_namespace = seen.namespace(ns.namespace()).unwrap();
            assert_eq!(of_namespace.hits, (0..100).filter(|turn| turn % (at + of + 1) == 0).count() as u64);
            assert_eq!(of_namespace.misses > 0, at == of);
        }
        assert_eq!(seen.memory.misses, seen.misses);
    }
}

#[test]
fn a_thread_that_is_torn_down_counts_on_where_all_may_count() {
    /// Counts when it is destroyed, and notes if it would count as the only one.
    struct Late(Arc<Recorder>, NamespaceId, Arc<AtomicU64>);
    impl Drop for Late {
        fn drop(&mut self) {
            (0..100).for_each(|_| read(&self.0, self.1));
            if self.0.slots.cells(self.1).1 == Owner::One {
                add(&self.2, 1);
            }
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    let (recorder, alone) = (Arc::new(Recorder::new(Clock::manual(), true)), Arc::<AtomicU64>::default());
    let ns = id(Namespace::CURVES);
    let torn_down = || {
        let (recorder, alone) = (recorder.clone(), alone.clone());
        move || {
            // Registered before the number is taken, and so destroyed after it was given back: it may be another thread's by then.
            LATE.with(|late| *late.borrow_mut() = Some(Late(recorder.clone(), ns, alone)));
            (0..100).for_each(|_| read(&recorder, ns));
        }
    };
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(torn_down())).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!((recorder.snapshot([None; 3], None).memory.hits, alone.load(Ordering::Relaxed)), (8 * 200, 0));
}

#[test]
fn every_time_is_told_once_wherever_it_waits() {
    let recorder = Recorder::new(Clock::manual(), true);
    let ns = id(Namespace::CURVES);
    let told = || recorder.snapshot([None; 3], None).memory.set;
    (1..=1_000).for_each(|times| {
        recorder.timed_in_memory(Verb::Set, ns, recorder.counter.begin());
        assert_eq!(told().count, times);
    });
    // So long that it is the longest, however long the others waited for a core.
    let ((cells, owner), ticks) = (recorder.slots.cells(ns), Ticks(30_000_000_000));
    let took = recorder.counter.scale().nanos(ticks) as f64;
    recorder.time_in_memory(Verb::Set, cells, owner, ticks);
    let max = told().max.as_nanos() as f64;
    assert!((0.98..1.02).contains(&(max / took)), "{max} of {took}");
}

#[test]
fn who_times_waits_for_nobody_who_reads_and_no_time_is_told_twice_or_forgotten() {
    let recorder = Recorder::new(Clock::manual(), true);
    let ns = id(Namespace::CURVES);
    let told = || recorder.snapshot([None; 3], None).memory.set.count;
    let mut counts = Vec::new();
    std::thread::scope(|scope| {
        let time = || (0..10_000).for_each(|_| recorder.timed_in_memory(Verb::Set, ns, recorder.counter.begin()));
        let writers: Vec<_> = (0..3).map(|_| scope.spawn(time)).collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            counts.push(told());
        }
    });
    counts.push(told());
    assert!(counts.is_sorted() && counts.last() <= Some(&30_000), "{counts:?}");
    let _held = recorder.latencies.hold(Verb::Set);
    (0..100).for_each(|_| recorder.timed_in_memory(Verb::Set, ns, recorder.counter.begin()));
}

#[test]
fn without_metrics_reads_and_writes_are_not_counted() {
    let recorder = Recorder::new(Clock::manual(), false);
    let ns = id(Namespace::CURVES);
    for _ in 0..100 {
        read(&recorder, ns);
        recorder.set(ns);
        recorder.resident_miss(ns, MissCause::Absent);
        assert!(recorder.sample().is_none());
    }
    let seen = recorder.snapshot([None; 3], None);
    assert_eq!((seen.hits, seen.misses, seen.sets, seen.memory.misses, seen.memory.get.count), (0, 0, 0, 0, 0));
}

/// A read of memory that hits.
fn read(recorder: &Recorder, ns: NamespaceId) {
    recorder.resident_hit(recorder.places(), ns).count(recorder);
}
