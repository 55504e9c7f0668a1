"""Records: committed facts about data, models and runs, made by a command, each change named."""
