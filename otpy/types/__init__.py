"""Types of fields that models know by themselves: images, tools, conversations, thoughts. Pure."""
