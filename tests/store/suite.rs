//! What the contract of a store promises, each promise a test.

mod epochs;
mod forks;
mod lifetimes;
mod logs;
mod messages;
mod missing_streams;
mod sessions;
mod world;

pub use epochs::*;
pub use forks::*;
pub use lifetimes::*;
pub use logs::*;
pub use messages::*;
pub use missing_streams::*;
pub use sessions::*;
pub use world::*;

/// Runs the suite against the stores that `$make` makes.
macro_rules! store_suite {
    ($store:ident, $make:expr) => {
        mod $store {
            store_suite!(@ $make;
                messages_come_back_in_order_from_any_offset,
                offsets_rise_and_sort_as_text,
                a_read_at_the_tail_is_empty_and_up_to_date,
                offsets_that_were_never_given_are_refused,
                a_closed_stream_takes_nothing_and_says_so_at_its_end,
                a_producers_retry_is_stored_once,
                text_is_read_in_whole_characters,
                retention_trims_the_front_and_says_how_much_is_missed,
                a_repeated_creation_is_the_same_stream_and_a_different_one_a_conflict,
                concurrent_appends_are_each_stored_once,
                a_new_life_of_a_stream_has_other_offsets,
                an_idle_stream_ends_unless_somebody_waits_for_it,
                a_sweep_ends_what_is_over_and_nothing_else,
                an_end_that_was_given_follows_the_time_of_day_and_ages_do_not,
                a_sweep_tells_the_ends_that_a_request_noticed,
                a_description_does_not_count_as_use,
                names_are_those_of_streams_that_are_there,
                many_streams_are_named_a_part_at_a_time,
                each_life_of_a_stream_says_its_epoch,
                a_fork_shares_the_past_and_not_the_future,
                a_sub_offset_refines_the_point_of_a_fork,
                a_deleted_source_lives_on_for_its_forks_only,
                a_fork_knows_nothing_of_the_sources_writers,
                a_fork_outlives_the_retention_of_its_source,
                messages_come_one_by_one_with_what_was_said,
                a_read_of_messages_stops_at_its_limits_but_brings_one_at_least,
                an_append_of_bytes_is_one_message_and_its_rest_too,
                messages_end_as_reads_do,
                the_retained_message_outlives_its_log_until_it_is_cleared,
                a_retained_message_expires,
                an_empty_message_is_a_message_and_clears_the_retained_one,
                a_character_with_empty_messages_between_its_bytes_is_read_whole,
                a_fork_shares_what_was_said_but_retains_nothing,
                what_is_said_does_not_change_a_read,
                an_append_creates_its_stream_once,
                a_close_alone_creates_a_closed_stream,
                a_refused_append_creates_nothing,
                an_append_begins_another_life_of_a_stream_that_has_ended,
                an_append_of_any_type_is_split_as_its_stream_wants,
                of_many_that_would_create_a_stream_one_does,
                a_session_is_what_its_changes_have_made_of_it,
                a_session_that_has_ended_is_gone,
                an_append_changes_a_session_with_it_or_not_at_all,
                a_session_may_be_large_and_hold_any_bytes,
                only_the_append_that_closed_a_stream_is_its_retry,
                a_number_of_an_earlier_start_is_neither_a_retry_nor_taken,
                an_append_without_a_sequence_leaves_the_last_one_as_it_was,
                leaving_an_earlier_life_lets_the_present_one_stand_still,
                the_end_of_an_earlier_life_is_not_that_of_the_present_one,
            );
        }
    };
    (@ $make:expr; $($test:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::suite::$test(&|| $make()).await;
            }
        )*
    };
}
