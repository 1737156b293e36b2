"""What the fly's visual system does with a stimulus: labelled, lazy, chunked."""
