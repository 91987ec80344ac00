"""What several data sets share: trees and archives, annotations, layouts."""
