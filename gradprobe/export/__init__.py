"""What was measured of one experiment, in the forms of other tools: CSV, Parquet, Arrow, TensorBoard, PNG, HTML.

Each form has a file, which imports the library that it needs when it is asked for, and not before.
"""
