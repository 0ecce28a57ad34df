"""Pictures: figures, debug pictures, reports, films and the voxel viewer.

It may import everything but `app`; matplotlib, plotly, av and anywidget are imported nowhere else.
"""
