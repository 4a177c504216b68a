use super::*;

fn change(key: &str, bytes: usize) -> Change {
    (key.to_owned(), Some(vec![0; bytes]))
}

#[test]
fn the_last_operation_on_a_record_counts() {
    let given = vec![change("a", 1), change("b", 2), ("a".to_owned(), None), change("c", 3)];
    let want = vec![change("b", 2), ("a".to_owned(), None), change("c", 3)];
    assert_eq!(last_of_each(given), want);
}

#[test]
fn transactions_are_as_small_as_etcd_wants_them() {
    let many: Vec<_> = (0..300).map(|n| change(&n.to_string(), 10)).collect();
    let sizes: Vec<_> = batches(&many).iter().map(|b| b.len()).collect();
    assert_eq!(sizes, [127, 127, 46]);
    assert_eq!(batches(&many).concat(), many);

    let large = crate::core::MAX_RECORD_BYTES;
    let some = [change("a", large), change("b", 100), change("c", large), change("d", large)];
    let sizes: Vec<_> = batches(&some).iter().map(|b| b.len()).collect();
    assert_eq!(sizes, [2, 1, 1]);
    assert!(batches(&[]).is_empty());
}

/// Tens of thousands of small records in a few requests, large ones a few at a time.
#[test]
fn pages_follow_the_size_of_the_records() {
    assert_eq!(next_page(500, 500 * 400), 2621);
    assert_eq!(next_page(500, 500 * 10), LARGEST_PAGE);
    assert_eq!(next_page(4096, 4096 * 100_000), PAGE);
    assert_eq!(next_page(0, 0), PAGE);
}

#[test]
fn a_range_ends_after_its_prefix() {
    assert_eq!(range_end("/mezz/v1/agents/"), b"/mezz/v1/agents0");
}
