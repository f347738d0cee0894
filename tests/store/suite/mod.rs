//! The contract of a store, one test per promise.

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
                a_closed_stream_refuses_appends_and_reports_its_close_at_the_tail,
                a_producers_retry_is_stored_once,
                text_is_read_in_whole_characters,
                retention_trims_the_front_and_reports_how_much_is_missed,
                a_repeated_creation_is_the_same_stream_and_a_different_one_a_conflict,
                concurrent_appends_are_each_stored_once,
                a_new_life_of_a_stream_has_other_offsets,
                an_idle_stream_ends_unless_a_reader_is_attached,
                an_export_is_not_a_use_of_a_stream,
                a_created_stream_remembers_the_writers_that_it_is_told,
                a_sweep_ends_only_expired_streams,
                expiry_times_follow_the_wall_clock_and_ages_do_not,
                a_sweep_reports_streams_that_a_request_has_found_expired,
                a_description_does_not_count_as_use,
                a_page_lists_only_existing_streams,
                many_streams_are_listed_page_by_page,
                every_result_has_the_epoch_of_its_stream,
                a_fork_shares_the_past_and_not_the_future,
                a_sub_offset_refines_the_point_of_a_fork,
                a_deleted_source_lives_on_for_its_forks_only,
                a_fork_does_not_inherit_the_producers_of_its_source,
                a_fork_outlives_the_retention_of_its_source,
                a_source_stays_until_it_and_its_last_fork_are_deleted,
                a_snapshot_tells_where_a_stream_branches_off_and_whether_it_has_forks,
                a_fork_begins_at_an_offset_of_a_source_that_has_not_ended_and_is_not_too_deep,
                messages_are_read_one_by_one_with_their_annotations,
                a_read_of_messages_stops_at_its_limits_but_returns_at_least_one,
                an_append_of_bytes_is_one_message_from_any_offset,
                reads_of_messages_end_and_fail_like_other_reads,
                the_retained_message_outlives_its_log_until_it_is_cleared,
                a_retained_message_expires,
                an_empty_message_is_a_message_and_clears_the_retained_one,
                a_character_with_empty_messages_between_its_bytes_is_read_whole,
                a_fork_shares_what_was_said_but_retains_nothing,
                annotations_do_not_change_a_read,
                an_append_creates_its_stream_once,
                a_close_alone_creates_a_closed_stream,
                a_refused_append_creates_nothing,
                an_append_begins_another_life_of_a_stream_that_has_ended,
                an_append_of_any_type_is_split_by_the_type_of_its_stream,
                one_of_many_concurrent_appends_creates_the_stream,
                a_session_holds_the_result_of_its_changes,
                a_session_that_has_ended_is_gone,
                an_append_changes_a_session_with_it_or_not_at_all,
                a_session_may_be_large_and_hold_any_bytes,
                sessions_are_listed_page_by_page_and_those_of_the_gateway_apart,
                only_the_append_that_closed_a_stream_is_its_retry,
                a_sequence_of_an_earlier_epoch_is_neither_a_retry_nor_accepted,
                an_append_without_a_sequence_keeps_the_last_one,
                detaching_from_an_earlier_life_does_not_detach_from_the_present_one,
                the_expiry_of_an_earlier_life_does_not_end_the_present_one,
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
