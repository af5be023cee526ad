//! What waits in a yard, and when it may go.

use super::super::pin::pin;
use super::super::yard::Yard;

#[test]
fn nothing_is_freed_while_somebody_is_pinned_and_all_of_it_afterwards() {
    let (mut yard, reader) = (Yard::new(), pin());
    for item in 0..1_000 {
        yard.lay(item, 8);
    }
    yard.close();
    let drain = |yard: &mut Yard<i32>| {
        let mut freed = Vec::new();
        for _ in 0..1_000 {
            pin().flush();
            yard.free(|item| freed.push(item));
        }
        freed
    };
    assert_eq!(drain(&mut yard), [0; 0], "the reader may look at them");
    drop(reader);
    let mut freed = Vec::new();
    // Other tests of this process pin the same epoch.
    while freed.len() < 1_000 {
        freed.extend(drain(&mut yard));
    }
    assert_eq!(freed, (0..1_000).collect::<Vec<_>>(), "the oldest first");
    assert!(yard.clear().is_empty());
}

#[test]
fn a_yard_has_work_when_a_batch_was_closed_and_when_one_may_go() {
    let (mut yard, reader) = (Yard::new(), pin());
    assert!(!yard.has_work(), "it is empty");
    yard.lay(1, 8);
    assert!(!yard.has_work(), "it waits for company");
    yard.close();
    assert!(yard.has_work(), "a flush is wanted");
    assert!(yard.wants_flush());
    assert!(!yard.has_work(), "a reader may look at it");
    drop(reader);
    while !yard.has_work() {
        pin().flush();
    }
    let mut freed = Vec::new();
    yard.free(|item| freed.push(item));
    assert_eq!(freed, [1]);
    assert!(!yard.has_work(), "nothing is left");
}

#[test]
fn a_yard_tells_what_it_hands_out_soon_and_how_large_the_last_was() {
    let mut yard = Yard::new();
    assert!(yard.upcoming(0).is_none());
    for (item, bytes) in [(1, 8), (2, 2_000), (3, 1_000)] {
        yard.lay(item, bytes);
        assert_eq!(yard.last_bytes(), bytes);
    }
    assert_eq!([0, 1, 2, 3].map(|after| yard.upcoming(after).copied()), [Some(1), Some(2), Some(3), None]);
    yard.close();
    let mut freed = Vec::new();
    // Another test may be pinned for a while.
    while freed.is_empty() {
        pin().flush();
        yard.free(|item| freed.push(item));
    }
    assert_eq!((freed, yard.upcoming(0)), (vec![1], Some(&2)));
}
