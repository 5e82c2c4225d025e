"""What a report tells, a subject each: from records to blocks of a document."""
